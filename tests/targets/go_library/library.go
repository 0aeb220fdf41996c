// A library that C and C++ programs call, from threads that Go did not make. See README.md for the true chains.
package main

// #cgo CFLAGS: -O2 -g -fomit-frame-pointer
// #include "library.h"
import "C"

import "gotarget"

const steps = 3000 // of arithmetic in each function

//go:noinline
func leafNoFrame(x uint64) uint64 {
	for i := 0; i < steps; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

//go:noinline
func leafCaller(x uint64) uint64 { return leafNoFrame(x) ^ x }

// grow needs more stack than a goroutine begins with, so that the stack moves while C calls are below it.
//
//go:noinline
func grow(x uint64, below int) uint64 {
	var pad [64]uint64
	pad[x%64] = x + uint64(below)
	if below == 0 {
		return leafCaller(pad[x%64])
	}
	y := grow(gotarget.Step(pad[x%64]), below-1)
	return y ^ pad[x%64]
}

// down works and goes on in C, until depth is 0.
//
//go:noinline
func down(x uint64, depth int, peers C.uintptr_t) uint64 {
	y := leafCaller(x)
	if depth == 0 {
		return grow(y, 9)
	}
	return uint64(C.c_down(C.uint64_t(y), C.int(depth-1), peers)) ^ y
}

func main() {}
