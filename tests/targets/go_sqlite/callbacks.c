#include "callbacks.h"

#include "_cgo_export.h"

/* A function that stays a frame of its own, under its own name. */
#define FRAME __attribute__((noipa))

FRAME static void score(sqlite3_context *context, int n_values, sqlite3_value **values)
{
	(void)n_values;
	const char *name = (const char *)sqlite3_value_text(values[0]);
	int64_t points = goScore((uintptr_t)sqlite3_user_data(context), (char *)name, sqlite3_value_bytes(values[0]));
	sqlite3_result_int64(context, points);
}

FRAME static int compare(void *handle, int a_len, const void *a, int b_len, const void *b)
{
	int order = goCompare((uintptr_t)handle, (char *)a, a_len, (char *)b, b_len);
	return order < 0 ? -1 : order > 0;
}

FRAME static int authorize(void *handle, int action, const char *table, const char *column, const char *db,
			   const char *trigger)
{
	(void)table, (void)db, (void)trigger;
	if (action != SQLITE_READ)
		return SQLITE_OK;
	return goAuthorize((uintptr_t)handle, (char *)column) == 0 ? SQLITE_DENY : SQLITE_OK;
}

int register_score(sqlite3 *db, uintptr_t handle)
{
	return sqlite3_create_function(db, "score", 1, SQLITE_UTF8, (void *)handle, score, NULL, NULL);
}

int register_shelf(sqlite3 *db, uintptr_t handle)
{
	return sqlite3_create_collation(db, "shelf", SQLITE_UTF8, (void *)handle, compare);
}

int register_authorizer(sqlite3 *db, uintptr_t handle)
{
	return sqlite3_set_authorizer(db, authorize, (void *)handle);
}

FRAME int bind_text(sqlite3_stmt *stmt, int at, const char *text, int length)
{
	return sqlite3_bind_text(stmt, at, text, length, SQLITE_TRANSIENT);
}

FRAME int fold(const char *text, int length, char *out)
{
	int n = 0;
	for (int i = 0; i < length; i++) {
		char letter = text[i];
		if (letter >= 'A' && letter <= 'Z')
			letter += 'a' - 'A';
		switch (letter) {
		case 'a':
		case 'e':
		case 'i':
		case 'o':
		case 'u':
			break;
		default:
			out[n++] = letter;
		}
	}
	return n;
}
