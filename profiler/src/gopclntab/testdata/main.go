// A Go program that answers questions about its own code, the way its own runtime answers them.
package main

import (
	"bufio"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
)

type shape interface{ area() int }

type square struct{ side int }

func (s square) area() int { return product(s.side, s.side) }

type group struct{ shape }

func product(a, b int) int {
	return clamped(a) * clamped(b)
}

func clamped(n int) int {
	if n > 1<<30 {
		return 1 << 30
	}
	return n
}

//go:noinline
func apply[T any](items []T, f func(T) T) {
	for i := range items {
		items[i] = f(items[i])
	}
}

//go:noinline
func work(n int) int {
	numbers := []int{n, n + 1}
	apply(numbers, func(i int) int { return product(i, 2) })
	words := []string{"a"}
	apply(words, func(s string) string { return s + s })
	g := group{square{n}}
	defer func() { n += clamped(n) }()
	return total([]shape{g, &g, square{numbers[0]}}) + len(words[0])
}

//go:noinline
func total(shapes []shape) (sum int) {
	for _, s := range shapes {
		sum += s.area()
	}
	return
}

// answer reads the stated address of main.main, then stated addresses of instructions, in hexadecimal. It
// writes what runtime.CallersFrames says of each: function, file and line, separated by tabs.
func answer() {
	in := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	next := func() (uintptr, bool) {
		if !in.Scan() {
			return 0, false
		}
		n, err := strconv.ParseUint(strings.TrimSpace(in.Text()), 16, 64)
		if err != nil {
			panic(err)
		}
		return uintptr(n), true
	}
	stated, _ := next()
	bias := reflect.ValueOf(main).Pointer() - stated
	for {
		pc, ok := next()
		if !ok {
			return
		}
		// CallersFrames takes return addresses: it looks up the instruction before.
		frame, _ := runtime.CallersFrames([]uintptr{pc + bias + 1}).Next()
		fmt.Fprintf(out, "%s\t%s\t%d\n", frame.Function, frame.File, frame.Line)
	}
}

func main() {
	if work(3) == 0 {
		os.Exit(1)
	}
	answer()
}
