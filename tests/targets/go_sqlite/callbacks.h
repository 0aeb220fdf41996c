/* The way from SQLite into Go, and other C. */
#pragma once

#include <sqlite3.h>
#include <stdint.h>

/* Makes the function score(), the collation "shelf" and the authorizer known; all get the handle. Returns SQLite's code. */
int register_score(sqlite3 *db, uintptr_t handle);
int register_shelf(sqlite3 *db, uintptr_t handle);
int register_authorizer(sqlite3 *db, uintptr_t handle);

/* Binds a copy of a text. */
int bind_text(sqlite3_stmt *stmt, int at, const char *text, int length);

/* Lower case, without vowels. Writes at most `length` bytes to `out`; returns how many. */
int fold(const char *text, int length, char *out);
