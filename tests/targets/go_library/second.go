//go:build second

package main

// #include "library.h"
import "C"

//export goSecond
func goSecond(x C.uint64_t, depth C.int, peers C.uintptr_t) C.uint64_t {
	return C.uint64_t(down(uint64(x), int(depth), peers))
}
