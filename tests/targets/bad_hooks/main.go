// A program whose traceback hook misbehaves. See README.md.
package main

// #cgo CFLAGS: -O2 -g
// #include "hooks.h"
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"gotarget"
)

// register sets the hooks with the letters of os.Args[2].
func register() {
	var traceback, context, symbolizer unsafe.Pointer
	if strings.Contains(os.Args[2], "t") {
		traceback = C.address_of_traceback()
	}
	if strings.Contains(os.Args[2], "c") {
		context = C.address_of_context()
	}
	if strings.Contains(os.Args[2], "s") {
		symbolizer = C.address_of_symbolizer()
	}
	runtime.SetCgoTraceback(0, traceback, context, symbolizer)
}

//export goMiddle
func goMiddle(x C.uint64_t) C.uint64_t {
	y := uint64(x)
	for i := 0; i < 100000; i++ {
		y = gotarget.Step(y)
	}
	return C.c_leaf(C.uint64_t(y))
}

//go:noinline
func round() uint64 { return uint64(C.c_outer(1)) }

func command(line string) {
	switch line {
	case "register":
		register()
		fmt.Println("registered")
	case "fork":
		if C.start_child() != 0 {
			fail("fork")
		}
		fmt.Println("forked")
	case "exec":
		fail(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
	}
}

func fail(what any) {
	fmt.Fprintln(os.Stderr, what)
	os.Exit(1)
}

func main() {
	C.behave(C.CString(os.Args[1]))
	if len(os.Args) == 3 {
		register()
	}
	expected := round()
	gotarget.Start(command)
	rounds := uint64(0)
	for !gotarget.Over() {
		gotarget.Verify(expected, round())
		rounds++
	}
	if status := C.end_child(); status != 0 {
		fail(status)
	}
	gotarget.Finish(expected, rounds)
}
