// Go calls C calls Go calls C calls Go calls C, with work in every layer. See README.md for the true chains.
package main

// #cgo CFLAGS: -O2 -fomit-frame-pointer
// #include "nested.h"
import "C"

import (
	"os"
	"runtime"

	"gotarget"
)

const (
	heavy = 20000 // steps: the time goes into the layers
	light = 20    // steps: the time goes into the crossings
	storm = 60    // light calls for each heavy one
)

// sink keeps allocations on the heap.
var sink [2][]byte

//go:noinline
func goLeafNoFrame(x uint64, n int) uint64 {
	for i := 0; i < n; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

//go:noinline
func goLeafCaller(x uint64, n int) uint64 {
	return goLeafNoFrame(x, n) ^ x
}

//go:noinline
func goBurn(x uint64, n int) uint64 {
	var seen [8]uint64
	for i := 0; i < n; i++ {
		x = gotarget.Step(x)
		seen[x>>61] ^= x
	}
	return x ^ seen[x>>61]
}

//go:noinline
func goAlloc(x uint64, n int, worker int) uint64 {
	for i := 0; i < n/1000; i++ {
		block := make([]byte, 2048)
		block[x%2048] = byte(x)
		sink[worker] = block
		x += uint64(block[x%2048])
	}
	return x
}

//export goInner
func goInner(x C.uint64_t, n C.int) C.uint64_t {
	y := goLeafCaller(uint64(x), int(n))
	y = goBurn(y, int(n)/4)
	return C.c_inner(C.uint64_t(y), n) ^ C.uint64_t(y)
}

//export goMid
func goMid(x C.uint64_t, n C.int) C.uint64_t {
	y := goBurn(uint64(x), int(n))
	y = goLeafCaller(y, int(n)/4)
	return C.c_mid(C.uint64_t(y), n) ^ C.uint64_t(y)
}

//go:noinline
func goOuter(x uint64, n int) uint64 {
	y := goBurn(x, n)
	return uint64(C.c_outer(C.uint64_t(y), C.int(n))) ^ y
}

//go:noinline
func round(worker int) uint64 {
	x := goOuter(1, heavy)
	for i := 0; i < storm; i++ {
		x = goOuter(x, light)
	}
	return goAlloc(x, heavy, worker)
}

//go:noinline
func work(worker int) uint64 {
	rounds := uint64(0)
	for !gotarget.Over() {
		gotarget.Verify(expected, round(worker))
		rounds++
	}
	return rounds
}

var (
	expected uint64
	finished = make(chan uint64)
)

// second is started without arguments: with them, the compiler would put a wrapper between it and
// runtime.goexit, with a name that depends on the release.
//
//go:noinline
func second() {
	rounds := work(1)
	finished <- rounds
}

func main() {
	expected = round(0)
	if len(os.Args) > 1 && os.Args[1] == "storm" {
		// The signals that make a profile come from outside of the runtime.
		runtime.SetCPUProfileRate(1)
		C.c_storm()
	}
	go second()
	gotarget.Start(nil)
	own := work(0)
	gotarget.Finish(expected, own+<-finished)
}
