// A program that registers traceback hooks, calls through C and back as deep as it is told, and waits there.
package main

/*
#include <stdint.h>

struct context { uintptr_t context; };
static uintptr_t contexts;

static void hook_traceback(void *arg) { (void)arg; }
static void hook_context(struct context *arg) { if (!arg->context) arg->context = ++contexts; }
static void hook_symbolizer(void *arg) { (void)arg; }

static void *traceback_address(void) { return hook_traceback; }
static void *context_address(void) { return hook_context; }
static void *symbolizer_address(void) { return hook_symbolizer; }

extern void goUp(int);
static void down(int depth) { goUp(depth); }
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"
)

var lines = bufio.NewScanner(os.Stdin)

// work obeys lines of standard input: `register tcs` sets the hooks with these letters, `wait N` calls through
// C and back N times and obeys there, `park N` does the same on a goroutine that nobody runs meanwhile. Each line is
// answered with `done`.
func work() {
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		depth := 0
		if fields[0] != "register" {
			fmt.Sscan(fields[1], &depth)
		}
		switch fields[0] {
		case "register":
			register(fields[1])
			fmt.Println("done")
		case "wait":
			bottom = func() { fmt.Println("done"); work() }
			C.down(C.int(depth))
		case "park":
			parked := make(chan bool)
			bottom = func() { parked <- true; select {} }
			go func() { C.down(C.int(depth)) }()
			<-parked
			// The other goroutine may still be on its way from the channel to its rest.
			runtime.Gosched()
			fmt.Println("done")
		}
	}
	os.Exit(0)
}

func register(letters string) {
	hook := func(letter string, address unsafe.Pointer) unsafe.Pointer {
		if strings.Contains(letters, letter) {
			return address
		}
		return nil
	}
	runtime.SetCgoTraceback(0,
		hook("t", C.traceback_address()),
		hook("c", C.context_address()),
		hook("s", C.symbolizer_address()))
}

var bottom func()

//export goUp
func goUp(depth C.int) {
	if depth > 1 {
		C.down(depth - 1)
		return
	}
	bottom()
}

//export answer_in_library
func answer_in_library() { work() }

func main() { work() }
