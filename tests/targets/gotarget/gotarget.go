// Package gotarget holds what every Go target does alike: the ready line, the end of the work, commands, and
// the checksum line.
package gotarget

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

var over atomic.Bool

// Start prints the ready line and begins to watch standard input and SIGTERM. Each line of standard input is
// given to command, which may be nil.
func Start(command func(line string)) {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go watchSignal(terminated)
	go watchInput(command)
	fmt.Printf("ready %d\n", os.Getpid())
}

func watchSignal(terminated chan os.Signal) {
	<-terminated
	over.Store(true)
}

func watchInput(command func(line string)) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if command != nil {
			command(lines.Text())
		}
	}
	over.Store(true)
}

// Over reports whether the work is over.
func Over() bool { return over.Load() }

// Verify holds the value of the first round against that of a later one; a difference is the end.
func Verify(expected, got uint64) {
	if expected != got {
		fmt.Fprintf(os.Stderr, "a round gave %016x, the first gave %016x\n", got, expected)
		os.Exit(1)
	}
}

// Finish prints the checksum line.
func Finish(value, iterations uint64) {
	fmt.Printf("checksum %016x %d\n", value, iterations)
}

// Step is one step of the arithmetic that burns time: each needs the result of the last. It is small, so that
// the compiler puts it inside its callers, where it is a frame without a call.
func Step(x uint64) uint64 { return x*6364136223846793005 + 1442695040888963407 }
