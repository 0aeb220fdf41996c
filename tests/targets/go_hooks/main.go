// A program with traceback hooks and callbacks that wait for ever. See README.md.
package main

// #cgo CFLAGS: -O2 -g -fomit-frame-pointer
// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "hooks.h"
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"gotarget"
)

const (
	held  = 3     // callbacks beneath the goroutine that waits
	deep  = 5     // callbacks of a round
	steps = 20000 // of arithmetic in each
)

// waiting gets a word when the goroutine that waits has arrived.
var waiting = make(chan bool)

// register sets the hooks with these letters: t, c, s. The symbolizer is in the library at os.Args[1].
func register(letters string) {
	var traceback, context, symbolizer unsafe.Pointer
	if strings.Contains(letters, "t") {
		traceback = C.address_of_traceback()
	}
	if strings.Contains(letters, "c") {
		context = C.address_of_context()
	}
	if strings.Contains(letters, "s") {
		library := C.CString(os.Args[1])
		defer C.free(unsafe.Pointer(library))
		if symbolizer = C.address_of_symbolizer(library); symbolizer == nil {
			fmt.Fprintln(os.Stderr, "there is no symbolizer in", os.Args[1])
			os.Exit(1)
		}
	}
	runtime.SetCgoTraceback(0, traceback, context, symbolizer)
}

// hold calls through C and back, and waits at the bottom.
//
//go:noinline
func hold() { C.c_down(0, -held) }

//export goUp
func goUp(x C.uint64_t, depth C.int) C.uint64_t {
	switch {
	case depth == -1:
		waiting <- true
		select {}
	case depth < 0:
		return C.c_down(x, depth+1)
	}
	y := uint64(x)
	for i := 0; i < steps; i++ {
		y = gotarget.Step(y)
	}
	if depth == 1 {
		return C.uint64_t(y)
	}
	return C.c_down(C.uint64_t(y), depth-1)
}

//go:noinline
func round() uint64 { return uint64(C.c_down(1, deep)) }

// command obeys `register LETTERS`: it registers the hooks with these letters, lets a goroutine wait in callbacks, and
// answers `registered`.
func command(line string) {
	letters, found := strings.CutPrefix(line, "register ")
	if !found {
		return
	}
	register(letters)
	go hold()
	<-waiting
	fmt.Println("registered")
}

func main() {
	expected := round()
	gotarget.Start(command)
	rounds := uint64(0)
	for !gotarget.Over() {
		gotarget.Verify(expected, round())
		rounds++
	}
	gotarget.Finish(expected, rounds)
}
