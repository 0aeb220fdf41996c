package main

/*
#include "callbacks.h"
*/
import "C"

import (
	"bytes"
	"fmt"
	"runtime/cgo"
	"strings"
	"unsafe"

	"gotarget"
)

const (
	articles = 60
	deep     = 45   // levels of the expression that is compiled: more than a hook has room for
	folds    = 20   // calls of C that call nobody, for each article
	spin     = 3000 // steps of arithmetic in a callback of the compiler
)

var (
	qualities = []string{"Small", "LARGE", "blue", "Green", "heavy"}
	things    = []string{"kettle", "lamp", "chair", "basket", "blanket", "hammer", "mirror"}
)

// A catalogue of articles in one database, and what their names mean in another.
type shop struct {
	catalogue, dictionary *database
	best, meaning         *statement
	expression            string
	folded                [64]byte
}

func openShop() (*shop, error) {
	s := &shop{expression: "SELECT cents" + strings.Repeat(" + 1", deep) + " FROM article WHERE id = 7"}
	handle := C.uintptr_t(cgo.NewHandle(s))
	var err error
	if s.catalogue, err = openDatabase(); err != nil {
		return nil, err
	}
	if s.dictionary, err = openDatabase(); err != nil {
		return nil, err
	}
	C.register_score(s.catalogue.db, handle)
	C.register_shelf(s.catalogue.db, handle)
	C.register_shelf(s.dictionary.db, handle)
	var catalogue, dictionary strings.Builder
	catalogue.WriteString("CREATE TABLE article (id INTEGER PRIMARY KEY, name TEXT, cents INTEGER);")
	for i := 0; i < articles; i++ {
		name := qualities[i%len(qualities)] + " " + things[i%len(things)]
		fmt.Fprintf(&catalogue, "INSERT INTO article VALUES (%d, '%s No. %d', %d);", i, name, i*7%13, i*7919%9800)
	}
	dictionary.WriteString("CREATE TABLE word (word TEXT COLLATE shelf PRIMARY KEY, meaning INTEGER) WITHOUT ROWID;")
	for i, thing := range things {
		fmt.Fprintf(&dictionary, "INSERT INTO word VALUES ('%s', %d);", thing, 100+i)
	}
	if err = s.catalogue.exec(catalogue.String()); err != nil {
		return nil, err
	}
	if err = s.dictionary.exec(dictionary.String()); err != nil {
		return nil, err
	}
	s.best, err = s.catalogue.prepare("SELECT id FROM article ORDER BY score(name) DESC, name COLLATE shelf, id")
	if err != nil {
		return nil, err
	}
	if s.meaning, err = s.dictionary.prepare("SELECT meaning FROM word WHERE word = ?1"); err != nil {
		return nil, err
	}
	C.register_authorizer(s.catalogue.db, handle)
	return s, nil
}

// round does the same work each time: it runs a query that calls back for each row, and compiles one that calls back from
// deep inside of the compiler.
//
//go:noinline
func (s *shop) round() (uint64, error) {
	value, err := s.search()
	if err != nil {
		return 0, err
	}
	price, err := s.compute()
	return value*31 + price, err
}

//go:noinline
func (s *shop) search() (uint64, error) {
	defer s.best.reset()
	value := uint64(1)
	for {
		found, err := s.best.step()
		if err != nil || !found {
			return value, err
		}
		value = gotarget.Step(value) + uint64(s.best.int(0))
	}
}

//go:noinline
func (s *shop) compute() (uint64, error) {
	query, err := s.catalogue.prepare(s.expression)
	if err != nil {
		return 0, err
	}
	defer query.close()
	if _, err := query.step(); err != nil {
		return 0, err
	}
	return uint64(query.int(0)), nil
}

// The number that the dictionary has for a word; 0 if it has none.
//
//go:noinline
func (s *shop) meaningOf(word []byte) uint64 {
	defer s.meaning.reset()
	s.meaning.bindText(1, word)
	if found, err := s.meaning.step(); err != nil || !found {
		return 0
	}
	return uint64(s.meaning.int(0))
}

// goScore is the SQL function score(name).
//
//export goScore
func goScore(handle C.uintptr_t, name *C.char, length C.int) C.int64_t {
	s := cgo.Handle(handle).Value().(*shop)
	text := unsafe.Slice((*byte)(unsafe.Pointer(name)), length)
	_, rest, _ := bytes.Cut(text, []byte(" "))
	thing, _, _ := bytes.Cut(rest, []byte(" "))
	meaning := s.meaningOf(thing)
	var n C.int
	for i := 0; i < folds; i++ {
		n = C.fold(name, min(length, C.int(len(s.folded))), (*C.char)(unsafe.Pointer(&s.folded[0])))
	}
	for _, letter := range s.folded[:n] {
		meaning = meaning*33 + uint64(letter)
	}
	return C.int64_t(meaning % 16)
}

// goCompare is the collation "shelf".
//
//export goCompare
func goCompare(handle C.uintptr_t, a *C.char, aLen C.int, b *C.char, bLen C.int) C.int {
	left := unsafe.Slice((*byte)(unsafe.Pointer(a)), aLen)
	right := unsafe.Slice((*byte)(unsafe.Pointer(b)), bLen)
	for i := 0; i < len(left) && i < len(right); i++ {
		if l, r := lower(left[i]), lower(right[i]); l != r {
			return C.int(l) - C.int(r)
		}
	}
	return aLen - bLen
}

// goAuthorize is asked by SQLite's compiler whether a column may be read.
//
//export goAuthorize
func goAuthorize(handle C.uintptr_t, column *C.char) C.int {
	s := cgo.Handle(handle).Value().(*shop)
	value := s.meaningOf([]byte("mirror"))
	for i := 0; i < spin; i++ {
		value = gotarget.Step(value)
	}
	if value == 0 {
		return 0
	}
	return 1
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
