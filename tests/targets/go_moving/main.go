// The stack of a goroutine moves while C that it called is still running. See README.md for the true chains.
package main

// #cgo CFLAGS: -O2 -fomit-frame-pointer
// #include "moving.h"
import "C"

import "gotarget"

const (
	frames  = 60 // of deep: some 32 KiB, so that the stack moves several times
	fill    = 99 // calls of fillA and fillB in turn, below the first: the sizes of stack that movers leave behind
	fillers = 2  // of each kind, for each mover: goroutines that reuse what a moved stack left behind
	movers  = 2  // goroutines that move, at the same time
)

var (
	moved  = make(chan uint64)
	filled = make(chan struct{})

	expectedA = fillA(1, fill)
	expectedB = fillB(1, fill)
)

//go:noinline
func deepBurn(x uint64) uint64 {
	for i := 0; i < 30000; i++ {
		x = gotarget.Step(x)
	}
	return x
}

// deep has a large frame, so that a fresh goroutine outgrows its stack several times on the way down.
//
//go:noinline
func deep(x uint64, below int) uint64 {
	var pad [64]uint64
	pad[x%64] = x + uint64(below)
	if below == 0 {
		return deepBurn(pad[x%64])
	}
	y := deep(gotarget.Step(pad[x%64]), below-1)
	return y ^ pad[x%64]
}

// fillA and fillB have small frames of different sizes: the memory that they used is dense with return addresses
// and frame pointers, at every alignment.
//
//go:noinline
func fillA(x uint64, below int) uint64 {
	if below == 0 {
		return x
	}
	return fillB(gotarget.Step(x), below-1) ^ x
}

//go:noinline
func fillB(x uint64, below int) uint64 {
	if below == 0 {
		return x
	}
	y := gotarget.Step(x)
	z := gotarget.Step(y)
	return fillA(z, below-1) ^ x ^ y + z
}

// fillerA and fillerB leave return addresses into fillA and fillB wherever the freed stacks were.
//
//go:noinline
func fillerA() {
	gotarget.Verify(expectedA, fillA(1, fill))
	filled <- struct{}{}
}

//go:noinline
func fillerB() {
	gotarget.Verify(expectedB, fillB(1, fill))
	filled <- struct{}{}
}

// goInner runs on a goroutine whose stack is still small, grows it, and lets others take over what was freed.
// The stack below it, with the frames that called C, is now elsewhere.
//
//export goInner
func goInner(x C.uint64_t) C.uint64_t {
	y := deep(uint64(x), frames-1)
	for i := 0; i < fillers; i++ {
		go fillerA()
		go fillerB()
	}
	for i := 0; i < 2*fillers; i++ {
		<-filled
	}
	return C.c_inner(C.uint64_t(y)) ^ C.uint64_t(y)
}

//go:noinline
func callC(x uint64) uint64 {
	return uint64(C.c_outer(C.uint64_t(x))) + x
}

//go:noinline
func mover() {
	x := callC(7)
	moved <- x
}

//go:noinline
func round() uint64 {
	for i := 0; i < movers; i++ {
		go mover()
	}
	x := uint64(0)
	for i := 0; i < movers; i++ {
		x += <-moved
	}
	return x
}

func main() {
	expected := round()
	gotarget.Start(nil)
	rounds := uint64(0)
	for !gotarget.Over() {
		gotarget.Verify(expected, round())
		rounds++
	}
	gotarget.Finish(expected, rounds)
}
