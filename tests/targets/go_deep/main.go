// Recursion deeper than a sample has frames, in Go and below that in C. See README.md for the true chains.
package main

// #cgo CFLAGS: -O2 -g -fomit-frame-pointer
// #include "deep.h"
import "C"

import "gotarget"

const (
	frames = 600    // of deep
	below  = 100    // of c_deep
	steps  = 200000 // of arithmetic at the bottom of each
)

//go:noinline
func leaf(x uint64) uint64 {
	for i := 0; i < steps; i++ {
		x = gotarget.Step(x)
	}
	return x
}

//go:noinline
func deep(x uint64, n int) uint64 {
	if n == 1 {
		y := leaf(x)
		return uint64(C.c_bottom(C.uint64_t(y), below)) ^ y
	}
	return deep(gotarget.Step(x), n-1) ^ x
}

func main() {
	expected := deep(1, frames)
	gotarget.Start(nil)
	rounds := uint64(0)
	for !gotarget.Over() {
		gotarget.Verify(expected, deep(1, frames))
		rounds++
	}
	gotarget.Finish(expected, rounds)
}
