// What the Go half needs of C besides SQLite itself.
#pragma once

#include <sqlite3.h>
#include <stdint.h>

// Makes score() and the collation "shelf" known; both get the handle back. Returns SQLite's code.
int register_callbacks(sqlite3 *db, uintptr_t handle);

// The handle that was given to register_callbacks.
uintptr_t handle_of(sqlite3_context *context);

// Binds a copy of a text.
int bind_text(sqlite3_stmt *stmt, int at, const char *text, int length);

// Lower case, single spaces, no punctuation. Writes at most `length` bytes to `out`; returns how many.
int normalize(const char *text, int length, char *out);
