package main

/*
#cgo LDFLAGS: -lsqlite3
#include "callbacks.h"
#include <stdlib.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime/cgo"
	"unsafe"
)

// A database in memory, for one goroutine at a time.
type database struct {
	db     *C.sqlite3
	handle cgo.Handle
}

func openDatabase() (*database, error) {
	name := C.CString(":memory:")
	defer C.free(unsafe.Pointer(name))
	d := &database{}
	flags := C.int(C.SQLITE_OPEN_READWRITE | C.SQLITE_OPEN_CREATE | C.SQLITE_OPEN_NOMUTEX)
	if code := C.sqlite3_open_v2(name, &d.db, flags, nil); code != C.SQLITE_OK {
		err := d.failure("cannot open a database")
		C.sqlite3_close(d.db)
		return nil, err
	}
	return d, nil
}

// Makes the function and the collation that are written in Go known, on behalf of a shop.
func (d *database) register(s *shop) error {
	d.handle = cgo.NewHandle(s)
	if C.register_callbacks(d.db, C.uintptr_t(d.handle)) != C.SQLITE_OK {
		return d.failure("cannot register the callbacks")
	}
	return nil
}

func (d *database) exec(script string) error {
	text := C.CString(script)
	defer C.free(unsafe.Pointer(text))
	if C.sqlite3_exec(d.db, text, nil, nil, nil) != C.SQLITE_OK {
		return d.failure("cannot fill the database")
	}
	return nil
}

func (d *database) prepare(query string) (*statement, error) {
	text := C.CString(query)
	defer C.free(unsafe.Pointer(text))
	s := &statement{db: d}
	if C.sqlite3_prepare_v2(d.db, text, -1, &s.stmt, nil) != C.SQLITE_OK {
		return nil, d.failure("cannot prepare " + query)
	}
	return s, nil
}

func (d *database) close() {
	C.sqlite3_close(d.db)
	if d.handle != 0 {
		d.handle.Delete()
	}
}

func (d *database) failure(what string) error {
	if d.db == nil {
		return errors.New(what)
	}
	return fmt.Errorf("%s: %s", what, C.GoString(C.sqlite3_errmsg(d.db)))
}

// A prepared query.
type statement struct {
	db   *database
	stmt *C.sqlite3_stmt
}

func (s *statement) bindInt(at int, value int64) {
	C.sqlite3_bind_int64(s.stmt, C.int(at), C.sqlite3_int64(value))
}

func (s *statement) bindText(at int, value string) {
	C.bind_text(s.stmt, C.int(at), (*C.char)(unsafe.Pointer(unsafe.StringData(value))), C.int(len(value)))
}

// Whether there is another row.
func (s *statement) step() (bool, error) {
	switch C.sqlite3_step(s.stmt) {
	case C.SQLITE_ROW:
		return true, nil
	case C.SQLITE_DONE:
		return false, nil
	default:
		return false, s.db.failure("cannot query")
	}
}

func (s *statement) int(column int) int64 {
	return int64(C.sqlite3_column_int64(s.stmt, C.int(column)))
}

func (s *statement) text(column int) string {
	return C.GoString((*C.char)(unsafe.Pointer(C.sqlite3_column_text(s.stmt, C.int(column)))))
}

func (s *statement) reset() {
	C.sqlite3_reset(s.stmt)
}

func (s *statement) close() {
	C.sqlite3_finalize(s.stmt)
}
