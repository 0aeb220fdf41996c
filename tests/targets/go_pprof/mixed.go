//go:build mixed

package main

// #cgo CFLAGS: -O2 -fomit-frame-pointer
// #include <stdint.h>
// uint64_t c_share(uint64_t x, int n);
import "C"

import "gotarget"

//export goShare
func goShare(x C.uint64_t, n C.int) C.uint64_t {
	y := uint64(x)
	for i := 0; i < int(n); i++ {
		y = gotarget.Step(y)
	}
	return C.uint64_t(y)
}

// mixed spends its time in C, and in Go that C called.
//
//go:noinline
func mixed(x uint64) uint64 {
	return uint64(C.c_share(C.uint64_t(x), 3*unit))
}
