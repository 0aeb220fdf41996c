/* Hooks that note where a callback came from, and walk from there only when they are asked. Addresses are those after the
 * calls, against the protocol, and a list that fills the buffer has no end marked. */
#define _GNU_SOURCE
#include "hooks.h"
#include "tables.h"

#include <pthread.h>
#include <ucontext.h>

#define CALLBACKS 64

/* Of the callbacks of a thread, the outermost first. */
static __thread struct cursor cursors[CALLBACKS];
static __thread unsigned used;
/* Known once the thread has had a callback. */
static __thread uintptr_t stack_end;

static uintptr_t find_stack_end(void)
{
	pthread_attr_t attributes;
	void *start = NULL;
	size_t size = 0;

	if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
		pthread_attr_getstack(&attributes, &start, &size);
		pthread_attr_destroy(&attributes);
	}
	return (uintptr_t)start + size;
}

static void context(struct context_arg *arg)
{
	if (arg->context != 0) {
		used--;
		return;
	}
	if (stack_end == 0)
		stack_end = find_stack_end();
	if (used == CALLBACKS)
		return;
	struct cursor cursor;
	__asm__("leaq 0f(%%rip), %0\n0:\n\tmovq %%rsp, %1\n\tmovq %%rbp, %2"
		: "=r"(cursor.pc), "=r"(cursor.sp), "=r"(cursor.fp));
	/* Out of this function and of _cgo_wait_runtime_init_done, whose frames will be gone. */
	if (!tables_step(&cursor, false, stack_end) || !tables_step(&cursor, true, stack_end))
		return;
	cursors[used] = cursor;
	arg->context = (uintptr_t)&cursors[used++];
}

static void traceback(struct traceback_arg *arg)
{
	struct cursor cursor;
	uintptr_t n = 0;

	if (arg->context != 0) {
		cursor = *(const struct cursor *)arg->context;
	} else if (arg->sig_context != 0) {
		const greg_t *registers = ((const ucontext_t *)arg->sig_context)->uc_mcontext.gregs;
		cursor = (struct cursor){registers[REG_RIP], registers[REG_RSP], registers[REG_RBP]};
	} else {
		arg->buf[0] = 0;
		return;
	}
	bool is_call = arg->context != 0;
	while (n < arg->max && tables_function(cursor.pc - is_call) != 0) {
		arg->buf[n++] = cursor.pc;
		if (!tables_step(&cursor, is_call, stack_end))
			break;
		is_call = true;
	}
	if (n < arg->max)
		arg->buf[n] = 0;
}

const struct hooks cursor_hooks = {traceback, context};
