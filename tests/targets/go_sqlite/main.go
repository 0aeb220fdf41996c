// A program that works in SQLite, which calls Go, and has the traceback hooks that its argument names. See README.md.
package main

// #cgo CFLAGS: -O2 -g -fomit-frame-pointer
// #cgo LDFLAGS: -lsqlite3 -ldl
// #include <stdlib.h>
// #include "hooks.h"
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"gotarget"
	"gotarget/selfprofile"
)

const workers = 2

var (
	expected uint64
	finished = make(chan uint64)
)

func register(name string) error {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	hooks := C.hooks_named(text)
	if hooks == nil {
		return fmt.Errorf("there are no hooks called %q", name)
	}
	runtime.SetCgoTraceback(0, unsafe.Pointer(hooks.traceback), unsafe.Pointer(hooks.context), C.symbolize)
	// What the symbolizer keeps, it has from now on.
	runtime.CallersFrames([]uintptr{uintptr(unsafe.Pointer(hooks.traceback))}).Next()
	return nil
}

//go:noinline
func work(s *shop) {
	rounds := uint64(0)
	for !gotarget.Over() {
		value, err := s.round()
		if err != nil {
			fatal(err)
		}
		gotarget.Verify(expected, value)
		rounds++
	}
	finished <- rounds
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: %s leaf|cursor|eager", os.Args[0])
	}
	if err := register(os.Args[1]); err != nil {
		return err
	}
	var shops [workers]*shop
	for i := range shops {
		s, err := openShop()
		if err != nil {
			return err
		}
		if expected, err = s.round(); err != nil {
			return err
		}
		shops[i] = s
	}
	for _, s := range shops {
		go work(s)
	}
	gotarget.Start(selfprofile.Command)
	rounds := uint64(0)
	for range shops {
		rounds += <-finished
	}
	gotarget.Finish(expected, rounds)
	return nil
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func main() {
	if err := run(); err != nil {
		fatal(err)
	}
}
