#include <stdint.h>

/* Calls goMiddle(who), which calls c_inner(who), which calls goInner(who), which calls c_leaf(who). */
void c_outer(uintptr_t who);
void c_inner(uintptr_t who);
/* Computes for a while; the result is always the same. */
uint64_t c_leaf(uintptr_t who);

void hook_traceback(void *);
void hook_context(void *);
