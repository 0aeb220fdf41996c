#include <stdint.h>

/* Calls goMiddle(who), which calls c_inner(who), which calls goInner(who), which calls c_leaf(who). */
void c_outer(uintptr_t who);
void c_inner(uintptr_t who);
/* Computes for a while; the result is always the same. */
uint64_t c_leaf(uintptr_t who);
/* Starts a thread that Go never hears of, and that calls c_leaf for ever; returns its id. */
int start_stranger(void);
void hook_traceback(void *);
void hook_context(void *);
void hook_symbolizer(void *);
