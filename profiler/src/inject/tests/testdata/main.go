// Workers whose calls nest, Go in C in Go in C, and who check their own results. It prints the thread of each, works
// until its input ends, and then prints how much it did. For each signal 63 it prints a line. Input: "ignore" that
// signal; "exec" itself again.
package main

// #cgo CFLAGS: -O2 -fno-omit-frame-pointer
// #include "hooks.h"
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const workers = 4

var (
	expected C.uint64_t
	done     atomic.Bool
	rounds   atomic.Int64
	sink     atomic.Uint64
)

func init() {
	runtime.SetCgoTraceback(0, unsafe.Pointer(C.hook_traceback), unsafe.Pointer(C.hook_context),
		unsafe.Pointer(C.hook_symbolizer))
}

//export goMiddle
func goMiddle(who C.uintptr_t) {
	var sum uint64
	for i := uint64(0); i < 100000; i++ {
		sum = sum*31 + i
	}
	sink.Store(sum)
	C.c_inner(who)
}

//export goInner
func goInner(who C.uintptr_t) {
	for i := 0; i < 8; i++ {
		if sum := C.c_leaf(who); sum != expected {
			panic(fmt.Sprintf("%#x and not %#x", sum, expected))
		}
	}
}

func main() {
	expected = C.c_leaf(0)
	var all sync.WaitGroup
	for who := 1; who <= workers; who++ {
		all.Add(1)
		who, tid := who, make(chan int)
		go func() {
			runtime.LockOSThread()
			tid <- syscall.Gettid()
			for !done.Load() {
				C.c_outer(C.uintptr_t(who))
				rounds.Add(1)
			}
			all.Done()
		}()
		fmt.Println(who, <-tid)
	}
	received := make(chan os.Signal, 1)
	signal.Notify(received, syscall.Signal(63))
	go func() {
		for range received {
			fmt.Println("received")
		}
	}()
	go func() {
		for !done.Load() {
			time.Sleep(time.Millisecond)
			_ = make([]byte, 1<<16)
		}
	}()
	// With the first timer the runtime opens the descriptors that it needs.
	time.Sleep(time.Millisecond)
	fmt.Println(9, C.start_stranger())
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		if input.Text() == "exec" {
			panic(syscall.Exec(os.Args[0], os.Args, os.Environ()))
		}
		signal.Ignore(syscall.Signal(63))
		fmt.Println("ignored")
	}
	done.Store(true)
	all.Wait()
	fmt.Println("rounds", rounds.Load())
}
