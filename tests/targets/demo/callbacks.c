// The way from SQLite into Go.
#include "callbacks.h"

#include "_cgo_export.h"

static void score(sqlite3_context *context, int n_values, sqlite3_value **values)
{
	(void)n_values;
	goScore(context, values[0], values[1]);
}

static int compare(void *handle, int a_len, const void *a, int b_len, const void *b)
{
	return goCompare((uintptr_t)handle, (char *)a, a_len, (char *)b, b_len);
}

int register_callbacks(sqlite3 *db, uintptr_t handle)
{
	int code = sqlite3_create_function_v2(db, "score", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC, (void *)handle,
					      score, NULL, NULL, NULL);
	if (code != SQLITE_OK)
		return code;
	return sqlite3_create_collation_v2(db, "shelf", SQLITE_UTF8, (void *)handle, compare, NULL);
}

uintptr_t handle_of(sqlite3_context *context)
{
	return (uintptr_t)sqlite3_user_data(context);
}

int bind_text(sqlite3_stmt *stmt, int at, const char *text, int length)
{
	return sqlite3_bind_text(stmt, at, text, length, SQLITE_TRANSIENT);
}
