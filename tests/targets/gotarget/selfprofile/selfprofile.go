// Package selfprofile lets a target record its own CPU profile when told to, so that another profiler's can be held
// against it.
package selfprofile

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// Command obeys the line `profile SECONDS FILE HZ`, and answers `profiled FILE` when it is written.
func Command(line string) {
	if err := obey(line); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func obey(line string) error {
	words := strings.Fields(line)
	if len(words) != 4 || words[0] != "profile" {
		return fmt.Errorf("not a command: %q", line)
	}
	seconds, err := strconv.ParseFloat(words[1], 64)
	if err != nil {
		return err
	}
	hz, err := strconv.Atoi(words[3])
	if err != nil {
		return err
	}
	if err := record(seconds, words[2], hz); err != nil {
		return err
	}
	fmt.Printf("profiled %s\n", words[2])
	return nil
}

// record records for a while. The rate that StartCPUProfile asks for is refused, with a message, because another is set
// already: there is no other way to choose one.
func record(seconds float64, file string, hz int) error {
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
