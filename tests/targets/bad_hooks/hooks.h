#ifndef HOOKS_H
#define HOOKS_H

#include <stdint.h>

/* What hooks are given (runtime.SetCgoTraceback). */
struct context_arg {
	uintptr_t context;
};
struct traceback_arg {
	uintptr_t context;
	uintptr_t sig_context;
	uintptr_t *buf;
	uintptr_t max;
};
struct symbolizer_arg {
	uintptr_t pc;
	const char *file;
	uintptr_t lineno;
	const char *func;
	uintptr_t entry;
	uintptr_t more;
	uintptr_t data;
};

void *address_of_traceback(void);
void *address_of_context(void);
void *address_of_symbolizer(void);

/* How the traceback hook is to behave; see README.md. */
void behave(const char *how);

/* Calls goMiddle. */
uint64_t c_outer(uint64_t x);

/* Computes, holding the lock. */
uint64_t c_leaf(uint64_t x);

/* Forks a child that computes until end_child, which returns 0 if its results were right. */
int start_child(void);
int end_child(void);

#endif
