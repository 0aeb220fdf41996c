/* The traceback protocol of Go's runtime (runtime.SetCgoTraceback, version 0), and those who speak it here. */
#pragma once

#include <stddef.h>
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

/* The functions that a program registers. */
struct hooks {
	void (*traceback)(struct traceback_arg *);
	void (*context)(struct context_arg *); /* may be NULL */
};

extern const struct hooks leaf_hooks, cursor_hooks, eager_hooks;

/* The hooks with this name: "leaf", "cursor", "eager"; NULL: there are none. */
const struct hooks *hooks_named(const char *name);

/* The symbolizer of all of them. */
void symbolize(struct symbolizer_arg *arg);
