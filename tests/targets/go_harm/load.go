package main

// #include "harm.h"
import "C"

import (
	"fmt"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"gotarget"
)

const (
	goThreads = 250 // goroutines, each locked to a thread of its own
	cThreads  = 250 // threads that Go did not start; every other one calls Go
	pause     = 50 * time.Millisecond
)

// threads keeps 500 of them, which work from time to time.
func threads() func() string {
	var started atomic.Int64
	for i := 0; i < goThreads; i++ {
		go func() {
			runtime.LockOSThread()
			started.Add(1)
			for {
				gotarget.Verify(expected, round())
				time.Sleep(pause)
			}
		}()
	}
	for i := 0; i < cThreads; i++ {
		C.c_start_thread(C.int(i%2*(deep+1)-1), C.int(pause.Microseconds()))
	}
	for started.Load() < goThreads {
		time.Sleep(time.Millisecond)
	}
	return func() string { return fmt.Sprintf("threads=%d", goThreads+cThreads) }
}

type tree struct {
	left, right *tree
	value       []byte
}

func grow(depth int) *tree {
	t := &tree{value: make([]byte, 64)}
	t.value[0] = byte(depth)
	if depth > 0 {
		t.left, t.right = grow(depth-1), grow(depth-1)
	}
	return t
}

func (t *tree) sum() int {
	if t == nil {
		return 0
	}
	return int(t.value[0]) + t.left.sum() + t.right.sum()
}

// garbage lets the collector run all the time, over trees that are checked before they are dropped.
func garbage() func() string {
	debug.SetGCPercent(5)
	expected := grow(10).sum()
	for i := 0; i < 2; i++ {
		go func() {
			for {
				if sum := grow(10).sum(); sum != expected {
					fail("a tree has", sum, "and not", expected)
				}
				gotarget.Verify(round(), round())
			}
		}()
	}
	return func() string {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return fmt.Sprintf("collections=%d", stats.NumGC)
	}
}

//export goTick
func goTick(x C.uint64_t) C.uint64_t { return x + 1 }

// callbacks calls Go from C as often as it can, on two threads.
func callbacks() func() string {
	const storm = 100000
	var n atomic.Uint64
	for i := 0; i < 2; i++ {
		go func() {
			for {
				if ticks := C.c_storm(storm); ticks != storm {
					fail(ticks, "callbacks and not", storm)
				}
				n.Add(storm)
			}
		}()
	}
	begun := time.Now()
	return func() string {
		return fmt.Sprintf("callbacks=%d milliseconds=%d", n.Load(), time.Since(begun).Milliseconds())
	}
}

// waits lets threads sleep in the kernel in all ways: two of Go's with C on their stacks, and two that Go does not know.
func waits() func() string {
	for i := 0; i < 2; i++ {
		C.c_start_waiting_thread()
		go C.c_wait_for_ever()
	}
	for C.c_rounds_of_waits() < 20 {
		time.Sleep(time.Millisecond)
	}
	return func() string { return C.GoString(C.c_interrupted()) }
}

//export goSpawn
func goSpawn() C.int {
	if err := exec.Command("/bin/true").Run(); err != nil {
		fail("os/exec:", err)
	}
	return 0
}

// processes starts others, in all ways, one after the other.
func processes() func() string {
	var n atomic.Uint64
	go func() {
		for {
			if status := C.c_fork(); status != 0 {
				fail("fork:", status)
			}
			if status := C.c_spawn(); status != 0 {
				fail("posix_spawn:", status)
			}
			n.Add(2)
		}
	}()
	go func() {
		for {
			goSpawn()
			// With C beneath.
			if C.c_call_spawn() != 0 {
				fail("no callback")
			}
			n.Add(2)
		}
	}()
	return func() string { return fmt.Sprintf("children=%d", n.Load()) }
}
