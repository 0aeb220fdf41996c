// Records its own CPU profile when told to, so that another profiler's can be held against it. See README.md.
package main

import (
	"sort"

	"gotarget"
	"gotarget/selfprofile"
)

const (
	workers = 2
	unit    = 3000 // steps
)

var (
	expected uint64
	finished = make(chan uint64)
)

// The functions share the time in fixed proportions.

//go:noinline
func share1(x uint64) uint64 { return spin1(x, 1*unit) }

//go:noinline
func spin1(x uint64, n int) uint64 {
	for i := 0; i < n; i++ {
		x = gotarget.Step(x)
	}
	return x
}

//go:noinline
func share2(x uint64) uint64 {
	for i := 0; i < 2*unit; i++ {
		x = gotarget.Step(x)
	}
	return x
}

//go:noinline
func share4(x uint64) uint64 {
	for i := 0; i < 4*unit; i++ {
		x = gotarget.Step(x) ^ x>>7
	}
	return x
}

//go:noinline
func share8(x uint64) uint64 {
	for i := 0; i < 8*unit; i++ {
		x = gotarget.Step(x) ^ x>>9
	}
	return x
}

// sorts and maps spend their time in the standard library and in the runtime.
//
//go:noinline
func sorts(x uint64) uint64 {
	numbers := make([]int, 300)
	for i := range numbers {
		x = gotarget.Step(x)
		numbers[i] = int(x >> 33)
	}
	sort.Ints(numbers)
	return x ^ uint64(numbers[150])
}

//go:noinline
func maps(x uint64) uint64 {
	counts := make(map[uint64]uint64)
	for i := 0; i < 300; i++ {
		x = gotarget.Step(x)
		counts[x>>57]++
	}
	return x ^ counts[x>>57]
}

//go:noinline
func round() uint64 {
	x := uint64(1)
	for i := 0; i < 20; i++ {
		x = share1(x)
		x = share2(x)
		x = share4(x)
		x = share8(x)
		x = sorts(x)
		x = maps(x)
		x = mixed(x)
	}
	return x
}

//go:noinline
func work() {
	rounds := uint64(0)
	for !gotarget.Over() {
		gotarget.Verify(expected, round())
		rounds++
	}
	finished <- rounds
}

func main() {
	expected = round()
	for i := 0; i < workers; i++ {
		go work()
	}
	gotarget.Start(selfprofile.Command)
	rounds := uint64(0)
	for i := 0; i < workers; i++ {
		rounds += <-finished
	}
	gotarget.Finish(expected, rounds)
}
