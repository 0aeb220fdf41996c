/* Hooks that store the whole stack of each callback when it begins, which costs more than most callbacks themselves. The
 * lists of contexts have no end marked, even where they are shorter than the buffer. */
#include "hooks.h"
#include "libgcc.h"

#include <string.h>

#define CALLBACKS 64
#define PCS 32

struct stack {
	uintptr_t n;
	uintptr_t pcs[PCS];
};

/* Of the callbacks of a thread, the outermost first. */
static __thread struct stack stacks[CALLBACKS];
static __thread unsigned used;

static void context(struct context_arg *arg)
{
	if (arg->context != 0) {
		used--;
		return;
	}
	if (used == CALLBACKS)
		return;
	struct stack *stack = &stacks[used++];
	/* Without this function and _cgo_wait_runtime_init_done, which called it. */
	stack->n = libgcc_walk(stack->pcs, PCS, 2);
	arg->context = (uintptr_t)stack;
}

static void traceback(struct traceback_arg *arg)
{
	if (arg->context != 0) {
		const struct stack *stack = (const struct stack *)arg->context;
		uintptr_t n = stack->n < arg->max ? stack->n : arg->max;
		memcpy(arg->buf, stack->pcs, n * sizeof *arg->buf);
		return;
	}
	/* As the hooks of leaf.c. */
	uintptr_t n = libgcc_walk(arg->buf, arg->max, 3);
	if (n < arg->max)
		arg->buf[n] = 0;
}

const struct hooks eager_hooks = {traceback, context};
