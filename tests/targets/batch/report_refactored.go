//go:build refactored

package main

// report has the code of what was sorted in itself, and format is split in two, for the same cost.
//
//go:noinline
func report(x uint64, n int) uint64 {
	for i := 0; i < n/3; i++ {
		x = x*step + 1
	}
	return formatBody(formatHead(x, n/3), n-n/3-n/3)
}

//go:noinline
func formatHead(x uint64, n int) uint64 {
	for i := 0; i < n; i++ {
		x = x*step + 1
	}
	return x
}

//go:noinline
func formatBody(x uint64, n int) uint64 {
	for i := 0; i < n; i++ {
		x = x*step + 1
	}
	return x
}
