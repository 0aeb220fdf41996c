// Added to the programs of Go's own distribution for the traceback protocol (runtime/testdata/testprogcgo), which run
// for a second or less and then exit: runs one of them again and again, in the language of our other targets.

package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

func init() {
	register("Driver", drive)
}

// The last line that a round of a program may print; no program prints such a line.
const mark = "driver: end of round"

// drive runs the program named by the second argument until standard input ends. What it prints is kept, and
// written as one line for each line of input. After the line "pause" it does nothing until the next line. The program has
// run once, with its hooks registered, when the driver says that it is ready.
func drive() {
	program := cmds[os.Args[2]]
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
	round()
	fmt.Fprintf(stdout, "ready %d\n", os.Getpid())
	for {
		select {
		case request, open := <-requests:
			if !open {
				fmt.Fprintf(stdout, "checksum %s %d\n", os.Args[2], rounds)
				return
			}
			fmt.Fprintln(stdout, strings.Join(output, " "))
			output = nil
			if request == "pause" {
				<-requests
			}
		default:
			round()
		}
	}
}

func scan(file *os.File, lines chan<- string) {
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		lines <- scanner.Text()
	}
	close(lines)
}
