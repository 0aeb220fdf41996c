// Reads the clock again and again, which runs code of the vDSO. See README.md for the true chains.
package main

import (
	"time"

	"gotarget"
)

const reads = 100000

var start = time.Now()

//go:noinline
func wall() time.Time { return time.Now() }

//go:noinline
func monotonic() time.Duration { return time.Since(start) }

// readClock counts how often the clock did not go back: it gives no other value that two runs share.
//
//go:noinline
func readClock() uint64 {
	last, forward := wall(), uint64(0)
	lastSince := monotonic()
	for i := 0; i < reads; i++ {
		next, since := wall(), monotonic()
		if !next.Before(last) && since >= lastSince {
			forward++
		}
		last, lastSince = next, since
	}
	return forward
}

func main() {
	gotarget.Start(nil)
	rounds := uint64(0)
	for !gotarget.Over() {
		gotarget.Verify(reads, readClock())
		rounds++
	}
	gotarget.Finish(reads, rounds)
}
