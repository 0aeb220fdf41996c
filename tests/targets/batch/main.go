// A job that does a fixed amount of work in Go and C and ends. See README.md.
package main

// #cgo CFLAGS: -O2 -fomit-frame-pointer
// #cgo slow_c CFLAGS: -DC_PERCENT=115
// #cgo slow_go CFLAGS: -DGO_PERCENT=115
// #cgo slow_all CFLAGS: -DALL_PERCENT=110
// #cgo slower_c CFLAGS: -DC_PERCENT=140
// #cgo slower_go CFLAGS: -DGO_PERCENT=140
// #cgo slower_all CFLAGS: -DALL_PERCENT=130
// #cgo refactored CFLAGS: -DREFACTORED
// #include "batch.h"
import "C"

import "fmt"

const (
	unit   = 4001 // steps; one percent of a round
	step   = 6364136223846793005
	rounds = 1500 * C.ALL_PERCENT / 100
)

//go:noinline
func parse(x uint64, n int) uint64 {
	for i := 0; i < n; i++ {
		x = x*step + 1
	}
	return x
}

//go:noinline
func lookup(x uint64, n int) uint64 {
	for i := 0; i < n*C.GO_PERCENT/100; i++ {
		x = x*step + 1
	}
	return x
}

//export goScore
func goScore(x C.uint64_t, n C.int) C.uint64_t {
	y := uint64(x)
	for i := 0; i < int(n); i++ {
		y = y*step + 1
	}
	return C.uint64_t(y)
}

//go:noinline
func round(x uint64) uint64 {
	x = parse(x, 15*unit)
	x = lookup(x, 20*unit)
	x = report(x, 15*unit)
	x = uint64(C.c_hash(C.uint64_t(x), 20*unit))
	x = uint64(C.c_pack(C.uint64_t(x), 14*unit))
	return uint64(C.c_filter(C.uint64_t(x), 16*unit))
}

func main() {
	x := uint64(1)
	for i := 0; i < rounds; i++ {
		x = round(x)
	}
	fmt.Printf("checksum %016x %d\n", x, uint64(rounds))
}
