/* Those who speak the traceback protocol here. */
#pragma once

#include "../common/traceback.h"

#include <stddef.h>
#include <stdint.h>

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
