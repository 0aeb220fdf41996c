// A program with traceback hooks that does what is easily harmed. See README.md.
package main

// #cgo CFLAGS: -O2 -g -fomit-frame-pointer
// #include "harm.h"
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"gotarget"
)

// deep is how many callbacks a round has beneath each other.
const deep = 3

var expected uint64

// modes are what the program can do besides its rounds: each starts that, and says how it went so far when asked.
var modes = map[string]func() func() string{
	"rounds":    func() func() string { return func() string { return "" } },
	"threads":   threads,
	"garbage":   garbage,
	"callbacks": callbacks,
	"processes": processes,
	"signals":   signals,
	"waits":     waits,
}

func init() {
	runtime.SetCgoTraceback(0, C.address_of_traceback(), C.address_of_context(), nil)
}

//export goUp
func goUp(x C.uint64_t, depth C.int) C.uint64_t {
	if depth <= 0 {
		return x*5 + 1
	}
	return C.c_down(x, depth-1)
}

//go:noinline
func round() uint64 { return uint64(C.c_down(1, deep)) }

// fail ends the program: something has gone wrong that does not without a profiler.
func fail(what ...any) {
	fmt.Fprintln(os.Stderr, what...)
	os.Exit(1)
}

// called is how often the hook has to be called before the program says so; 0: it does not.
var called atomic.Uint64

// work goes through rounds until it is over.
func work() uint64 {
	rounds := uint64(0)
	for !gotarget.Over() {
		gotarget.Verify(expected, round())
		rounds++
		if goal := called.Load(); goal > 0 && uint64(C.hook_calls()) >= goal {
			called.Store(0)
			fmt.Println("called")
		}
	}
	return rounds
}

func main() {
	if len(os.Args) < 2 || modes[os.Args[1]] == nil {
		fail("usage: go_harm MODE [ROUNDS]")
	}
	if len(os.Args) > 2 {
		brief(os.Args[2])
		return
	}
	run(os.Args[1])
}

// goRun does what main does, in a program of C.
//
//export goRun
func goRun(mode *C.char) C.int {
	run(C.GoString(mode))
	return 0
}

func run(mode string) {
	expected = round()
	report := modes[mode]()
	// With the first timer the runtime opens the descriptors that it needs.
	time.Sleep(time.Millisecond)
	gotarget.Start(func(line string) {
		var n uint64
		switch {
		case line == "report":
			fmt.Println("report " + report())
		case line == "exec":
			fail(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
		case scan(line, "called %d", &n):
			called.Store(uint64(C.hook_calls()) + n)
		}
	})
	gotarget.Finish(expected, work())
}

// brief goes through so many rounds and ends, with nobody at standard input.
func brief(rounds string) {
	expected = round()
	var n, i uint64
	scan(rounds, "%d", &n)
	fmt.Printf("ready %d\n", os.Getpid())
	for ; i < n; i++ {
		gotarget.Verify(expected, round())
	}
	gotarget.Finish(expected, n)
}

func scan(text, format string, value *uint64) bool {
	n, _ := fmt.Sscanf(text, format, value)
	return n == 1
}
