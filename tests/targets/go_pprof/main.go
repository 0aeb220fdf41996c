// Records its own CPU profile when told to, so that another profiler's can be held against it. See README.md.
//
// The line `profile SECONDS FILE HZ` on standard input starts it; `profiled FILE` answers when it is written.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"sort"
	"strconv"
	"strings"
	"time"

	"gotarget"
)

const (
	workers = 2
	unit    = 3000 // steps
)

var (
	expected uint64
	finished = make(chan uint64)
)

// The functions share the time in fixed proportions.

//go:noinline
func share1(x uint64) uint64 { return spin1(x, 1*unit) }

//go:noinline
func spin1(x uint64, n int) uint64 {
	for i := 0; i < n; i++ {
		x = gotarget.Step(x)
	}
	return x
}

//go:noinline
func share2(x uint64) uint64 {
	for i := 0; i < 2*unit; i++ {
		x = gotarget.Step(x)
	}
	return x
}

//go:noinline
func share4(x uint64) uint64 {
	for i := 0; i < 4*unit; i++ {
		x = gotarget.Step(x) ^ x>>7
	}
	return x
}

//go:noinline
func share8(x uint64) uint64 {
	for i := 0; i < 8*unit; i++ {
		x = gotarget.Step(x) ^ x>>9
	}
	return x
}

// sorts and maps spend their time in the standard library and in the runtime.
//
//go:noinline
func sorts(x uint64) uint64 {
	numbers := make([]int, 300)
	for i := range numbers {
		x = gotarget.Step(x)
		numbers[i] = int(x >> 33)
	}
	sort.Ints(numbers)
	return x ^ uint64(numbers[150])
}

//go:noinline
func maps(x uint64) uint64 {
	counts := make(map[uint64]uint64)
	for i := 0; i < 300; i++ {
		x = gotarget.Step(x)
		counts[x>>57]++
	}
	return x ^ counts[x>>57]
}

//go:noinline
func round() uint64 {
	x := uint64(1)
	for i := 0; i < 20; i++ {
		x = share1(x)
		x = share2(x)
		x = share4(x)
		x = share8(x)
		x = sorts(x)
		x = maps(x)
		x = mixed(x)
	}
	return x
}

//go:noinline
func work() {
	rounds := uint64(0)
	for !gotarget.Over() {
		gotarget.Verify(expected, round())
		rounds++
	}
	finished <- rounds
}

// profile records for a while. The rate that StartCPUProfile asks for is refused, with a message, because
// another is set already: there is no other way to choose one.
func profile(seconds float64, file string, hz int) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	if hz != 100 {
		runtime.SetCPUProfileRate(hz)
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	pprof.StopCPUProfile()
	return nil
}

func command(line string) {
	words := strings.Fields(line)
	if len(words) != 4 || words[0] != "profile" {
		fatal(fmt.Errorf("not a command: %q", line))
	}
	seconds, err := strconv.ParseFloat(words[1], 64)
	if err != nil {
		fatal(err)
	}
	hz, err := strconv.Atoi(words[3])
	if err != nil {
		fatal(err)
	}
	if err := profile(seconds, words[2], hz); err != nil {
		fatal(err)
	}
	fmt.Printf("profiled %s\n", words[2])
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func main() {
	expected = round()
	for i := 0; i < workers; i++ {
		go work()
	}
	gotarget.Start(command)
	rounds := uint64(0)
	for i := 0; i < workers; i++ {
		rounds += <-finished
	}
	gotarget.Finish(expected, rounds)
}
