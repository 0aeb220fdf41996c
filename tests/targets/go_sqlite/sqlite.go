package main

/*
#include "callbacks.h"
#include <stdlib.h>
*/
import "C"

import (
	"errors"
	"unsafe"
)

// A database in memory, for one goroutine at a time.
type database struct {
	db *C.sqlite3
}

func openDatabase() (*database, error) {
	name := C.CString(":memory:")
	defer C.free(unsafe.Pointer(name))
	d := &database{}
	flags := C.int(C.SQLITE_OPEN_READWRITE | C.SQLITE_OPEN_CREATE | C.SQLITE_OPEN_NOMUTEX)
	if C.sqlite3_open_v2(name, &d.db, flags, nil) != C.SQLITE_OK {
		return nil, errors.New("cannot open a database")
	}
	return d, nil
}

func (d *database) exec(script string) error {
	text := C.CString(script)
	defer C.free(unsafe.Pointer(text))
	if C.sqlite3_exec(d.db, text, nil, nil, nil) != C.SQLITE_OK {
		return d.failure()
	}
	return nil
}

func (d *database) prepare(query string) (*statement, error) {
	text := C.CString(query)
	defer C.free(unsafe.Pointer(text))
	s := &statement{db: d}
	if C.sqlite3_prepare_v2(d.db, text, -1, &s.stmt, nil) != C.SQLITE_OK {
		return nil, d.failure()
	}
	return s, nil
}

func (d *database) failure() error {
	return errors.New(C.GoString(C.sqlite3_errmsg(d.db)))
}

// A compiled query.
type statement struct {
	db   *database
	stmt *C.sqlite3_stmt
}

func (s *statement) bindText(at int, value []byte) {
	C.bind_text(s.stmt, C.int(at), (*C.char)(unsafe.Pointer(unsafe.SliceData(value))), C.int(len(value)))
}

// Whether there is another row.
func (s *statement) step() (bool, error) {
	switch C.sqlite3_step(s.stmt) {
	case C.SQLITE_ROW:
		return true, nil
	case C.SQLITE_DONE:
		return false, nil
	default:
		return false, s.db.failure()
	}
}

func (s *statement) int(column int) int64 {
	return int64(C.sqlite3_column_int64(s.stmt, C.int(column)))
}

func (s *statement) reset() { C.sqlite3_reset(s.stmt) }

func (s *statement) close() { C.sqlite3_finalize(s.stmt) }
