// Added to the programs of Go's own distribution for the traceback protocol (runtime/testdata/testprogcgo), which run
// for a second or less and then exit: makes one of them last, in the language of our other targets.

package main

// extern void tcContextSimple(void*);
// extern void tcTraceback(void*);
// extern void tcSymbolizer(void*);
// volatile int hang;
import "C"

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"unsafe"
)

func init() {
	register("Driver", drive)
}

// The last line that a round of a program may print; no program prints such a line.
const mark = "driver: end of round"

// drive runs the program named by the second argument, again and again until standard input ends, or just once if the
// arguments after it have "once": then the threads that it started go on. With "hooks" it runs with traceback hooks, which
// the program must not register itself: a context for each callback, one frame for each context.
//
// The program has run once, with its hooks registered, when the driver says that it is ready. From then on it does what
// each line of input says:
//
//   - "profile": Go's own CPU profile of the process begins, in place of one that the program left running.
//   - "output": what the program has printed is printed, as one line; before that, the profile ends, and its file is the
//     first word of the line.
//   - "hang": from now on the traceback function of CgoPprofThread does not come back.
//   - "pause": the same, and then nothing is done until the next line.
func drive() {
	program, options := cmds[os.Args[2]], os.Args[3:]
	if slices.Contains(options, "hooks") {
		runtime.SetCgoTraceback(0, unsafe.Pointer(C.tcTraceback), unsafe.Pointer(C.tcContextSimple), unsafe.Pointer(C.tcSymbolizer))
	}
	once := slices.Contains(options, "once")
	stdout := os.Stdout
	printed, capture, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	os.Stdout = capture
	lines := make(chan string)
	go scan(printed, lines)
	requests := make(chan string)
	go scan(os.Stdin, requests)

	var output []string
	rounds := 0
	round := func() {
		done := make(chan bool)
		go func() {
			for line := range lines {
				if line == mark {
					break
				}
				output = append(output, line)
			}
			done <- true
		}()
		program()
		fmt.Println(mark)
		<-done
		rounds++
	}
	var profile *os.File
	answer := func(request string) {
		switch request {
		case "profile":
			pprof.StopCPUProfile()
			profile = profileFile()
			if err := pprof.StartCPUProfile(profile); err != nil {
				panic(err)
			}
		case "hang":
			C.hang = 1
		case "output", "pause":
			if profile != nil {
				pprof.StopCPUProfile()
				output = slices.Insert(output, 0, profile.Name())
				profile.Close()
				profile = nil
			}
			fmt.Fprintln(stdout, strings.Join(output, " "))
			output = nil
			if request == "pause" {
				<-requests
			}
		}
	}
	round()
	fmt.Fprintf(stdout, "ready %d\n", os.Getpid())
	for {
		var request string
		open := true
		if once {
			request, open = <-requests
		} else {
			select {
			case request, open = <-requests:
			default:
				round()
				continue
			}
		}
		if !open {
			break
		}
		answer(request)
	}
	fmt.Fprintf(stdout, "checksum %s %d\n", os.Args[2], rounds)
}

func scan(file *os.File, lines chan<- string) {
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		lines <- scanner.Text()
	}
	close(lines)
}

func profileFile() *os.File {
	file, err := os.CreateTemp("", "prof")
	if err != nil {
		panic(err)
	}
	return file
}

// kept is called where a program throws its own profile away: the profile is kept, and its file is part of the output.
func kept(io.Writer) io.Writer {
	file := profileFile()
	fmt.Println(file.Name())
	return file
}

// burn is called where a program spends no time: it spends some.
//
//go:noinline
func burn() {
	for i := 0; i < 1_000_000; i++ {
		burned += i
	}
}

var burned int
