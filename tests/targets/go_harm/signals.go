package main

// #include "harm.h"
import "C"

import (
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// usable says whether a program may ask for a signal and send it to itself: the kernel has no handlers for SIGKILL and
// SIGSTOP, and 32 to 34 belong to the C library; SIGTERM ends the work; and SIGPROF, where it comes on a thread that Go does not
// know, is for Go's own profile alone (runtime/signal_unix.go, `sigtrampgo`).
func usable(s syscall.Signal) bool {
	switch s {
	case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTERM, syscall.SIGPROF, 32, 33, 34:
		return false
	}
	return true
}

// ignorable says whether Go ignores a signal when asked to: not what a thread's own mistakes are reported by
// (runtime/sigtab_linux_generic.go, _SigThrow and _SigPanic without _SigNotify).
func ignorable(s syscall.Signal) bool {
	switch s {
	case syscall.SIGILL, syscall.SIGTRAP, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGSTKFLT, syscall.SIGSYS:
		return false
	}
	return true
}

// signals asks for all signals, sends each to itself, ignores them, sends them again, and resets them, again and again. Each
// that it asks for has to come as often as it was sent, and none other.
func signals() func() string {
	// Go has no say on these, and a signal that nobody asked for would end the program there.
	C.c_start_thread(-1, 0)
	C.c_start_thread(-1, 0)
	var sent, received [65]atomic.Uint64
	var loops atomic.Uint64
	all := make(chan os.Signal, 1000)
	arrived := make(chan syscall.Signal, 1000)
	go func() {
		for s := range all {
			number := s.(syscall.Signal)
			// The runtime sends itself this one, to preempt goroutines.
			if number == syscall.SIGURG || number == syscall.SIGCHLD {
				continue
			}
			received[number].Add(1)
			arrived <- number
		}
	}()
	send := func(s syscall.Signal) {
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			fail("kill:", err)
		}
	}
	one := func(s syscall.Signal) {
		signal.Notify(all, s)
		if s != syscall.SIGURG && s != syscall.SIGCHLD {
			sent[s].Add(1)
			send(s)
			select {
			case got := <-arrived:
				if got != s {
					fail("received", int(got), "instead of", int(s))
				}
			case <-time.After(20 * time.Second):
				fail("signal", int(s), "did not come")
			}
		}
		signal.Ignore(s)
		if ignorable(s) {
			send(s)
		}
		signal.Notify(all, s)
		signal.Reset(s)
	}
	go func() {
		for {
			for s := syscall.Signal(64); s > 0; s-- {
				if usable(s) {
					one(s)
				}
			}
			loops.Add(1)
		}
	}()
	return func() string {
		n := uint64(0)
		for s := range sent {
			n += sent[s].Load()
			if came := received[s].Load(); came > sent[s].Load() {
				fail("signal", s, "was sent", sent[s].Load(), "times and came", came, "times")
			}
		}
		return fmt.Sprintf("loops=%d signals=%d", loops.Load(), n)
	}
}
