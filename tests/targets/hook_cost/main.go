// Works for a while when it is told to, and says what CPU time that took. See README.md.
package main

// #cgo CFLAGS: -O2 -fno-omit-frame-pointer
// #include "hooks.h"
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
)

// Steps of a round: a tenth of a second, about.
const round = 75_000_000

//export goWork
func goWork(x, n C.uint64_t, depth C.int) C.uint64_t {
	if depth == 0 {
		return C.c_work(x, n)
	}
	return C.c_up(x, n, depth-1)
}

func main() {
	runtime.LockOSThread()
	runtime.SetCgoTraceback(0, C.address_of_traceback(), C.address_of_context(), C.address_of_symbolizer())
	fmt.Printf("ready %d\n", os.Getpid())
	var sum, rounds uint64
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var what string
		var n int
		fmt.Sscan(lines.Text(), &what, &n)
		switch what {
		case "work": // beneath n callbacks
			before := C.cpu_time()
			sum += uint64(goWork(1, round, C.int(n)))
			rounds++
			fmt.Println(uint64(C.cpu_time() - before))
		case "grow":
			fmt.Println(C.grow(C.uint64_t(n)))
		case "addresses":
			C.make_addresses()
			fmt.Println(0)
		}
	}
	fmt.Printf("checksum %016x %d\n", sum, rounds)
}
