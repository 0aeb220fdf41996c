package main

/*
#include "callbacks.h"
*/
import "C"

import (
	"runtime/cgo"
	"strings"
	"unsafe"
)

// goScore is the SQL function score(name, wish): how well an article fits a customer's words.
//
//export goScore
func goScore(context *C.sqlite3_context, name, wish *C.sqlite3_value) {
	shop := cgo.Handle(C.handle_of(context)).Value().(*shop)
	shop.scores++
	var points int
	words := strings.Fields(normalized(name))
	for _, wanted := range strings.Fields(normalized(wish)) {
		meaning, err := shop.meaningOf(wanted)
		if err != nil {
			text := err.Error()
			C.sqlite3_result_error(context, (*C.char)(unsafe.Pointer(unsafe.StringData(text))), C.int(len(text)))
			return
		}
		for _, word := range words {
			points += similarity(word, meaning)
		}
	}
	C.sqlite3_result_int(context, C.int(points))
}

// goCompare is the collation "shelf": names in the order in which the articles stand on the shelf, which is
// without regard to case, numbers by their value.
//
//export goCompare
func goCompare(shopHandle C.uintptr_t, a *C.char, aLen C.int, b *C.char, bLen C.int) C.int {
	shop := cgo.Handle(shopHandle).Value().(*shop)
	shop.comparisons++
	left := unsafe.Slice((*byte)(unsafe.Pointer(a)), aLen)
	right := unsafe.Slice((*byte)(unsafe.Pointer(b)), bLen)
	return C.int(compareOnShelf(left, right))
}

// A text of the database in lower case, with single spaces and without punctuation.
func normalized(value *C.sqlite3_value) string {
	text := C.sqlite3_value_text(value)
	length := C.sqlite3_value_bytes(value)
	out := make([]byte, length)
	n := C.normalize((*C.char)(unsafe.Pointer(text)), length, (*C.char)(unsafe.Pointer(unsafe.SliceData(out))))
	return string(out[:n])
}

// Percentage of pairs of letters that two words have in common.
func similarity(a, b string) int {
	if a == b {
		return 100
	}
	if len(a) < 2 || len(b) < 2 {
		return 0
	}
	common := 0
	for i := 0; i+2 <= len(a); i++ {
		if strings.Contains(b, a[i:i+2]) {
			common++
		}
	}
	return 100 * common / (len(a) + len(b) - 2)
}

func compareOnShelf(a, b []byte) int {
	for len(a) > 0 && len(b) > 0 {
		var left, right int
		if isDigit(a[0]) && isDigit(b[0]) {
			left, a = takeNumber(a)
			right, b = takeNumber(b)
		} else {
			left, a = int(lower(a[0])), a[1:]
			right, b = int(lower(b[0])), b[1:]
		}
		if left != right {
			return left - right
		}
	}
	return len(a) - len(b)
}

func takeNumber(text []byte) (int, []byte) {
	n := 0
	for len(text) > 0 && isDigit(text[0]) {
		n = n*10 + int(text[0]-'0')
		text = text[1:]
	}
	return n, text
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
