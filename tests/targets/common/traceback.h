/*
 * What the functions are called with that a Go program registers: runtime.SetCgoTraceback, version 0.
 *
 * Go's build cache does not notice a change of this file, which no package holds.
 */
#ifndef TRACEBACK_H
#define TRACEBACK_H

#include <stdint.h>

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

#endif
