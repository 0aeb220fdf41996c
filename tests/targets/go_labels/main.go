// Goroutines that say what they do. See README.md for which function has which labels.
package main

/*
#include <stdint.h>
__attribute__((noinline)) static uint64_t burn(uint64_t x, int n) {
  for (int i = 0; i < n; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}
*/
import "C"

import (
	"context"
	"fmt"
	"runtime/pprof"
	"sync"

	"gotarget"
)

const steps = 200000

//go:noinline
func work(x uint64) uint64 {
	for i := 0; i < steps; i++ {
		x = gotarget.Step(x)
	}
	return x
}

//go:noinline
func checkout(x uint64) uint64 { return uint64(C.burn(C.uint64_t(work(x)), steps)) }

//go:noinline
func browse(x uint64) uint64 { return work(x) + 1 }

//go:noinline
func plain(x uint64) uint64 { return work(x) + 2 }

//go:noinline
func many(x uint64) uint64 { return work(x) + 3 }

// round runs each function with its labels. They are set anew each time, so that old ones become garbage.
func round() uint64 {
	sum := uint64(0)
	do := func(f func(uint64) uint64, labels ...string) {
		pprof.Do(context.Background(), pprof.Labels(labels...), func(context.Context) { sum += f(1) })
	}
	do(checkout, "tenant", fmt.Sprint("blue", " ✓"), "request", fmt.Sprint("check", "out"))
	do(browse, "request", "browse")
	sum += plain(1)
	var labels []string
	for i := 0; i < 10; i++ {
		labels = append(labels, fmt.Sprint("l", i), "x")
	}
	do(many, labels...)
	return sum
}

func main() {
	expected := round()
	gotarget.Start(nil)
	var workers sync.WaitGroup
	var rounds [2]uint64
	for w := range rounds {
		workers.Add(1)
		go func(n *uint64) {
			defer workers.Done()
			for !gotarget.Over() {
				gotarget.Verify(expected, round())
				*n++
			}
		}(&rounds[w])
	}
	workers.Wait()
	gotarget.Finish(expected, rounds[0]+rounds[1])
}
