//go:build !refactored

package main

//go:noinline
func report(x uint64, n int) uint64 { return format(sorted(x, n/3), n-n/3) }

//go:noinline
func sorted(x uint64, n int) uint64 {
	for i := 0; i < n; i++ {
		x = x*step + 1
	}
	return x
}

//go:noinline
func format(x uint64, n int) uint64 {
	for i := 0; i < n; i++ {
		x = x*step + 1
	}
	return x
}
