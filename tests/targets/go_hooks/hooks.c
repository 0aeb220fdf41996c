#define _GNU_SOURCE
#include "hooks.h"
#include "_cgo_export.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <ucontext.h>

/* Contexts are numbers: whoever confuses two of them would be noticed. */
static atomic_uintptr_t contexts;

static void hook_context(struct context_arg *arg) {
	if (arg->context == 0)
		arg->context = atomic_fetch_add(&contexts, 1) + 1;
}

/* One PC: the interrupted one, or a function that each callback came through. */
static void hook_traceback(struct traceback_arg *arg) {
	uintptr_t pc = (uintptr_t)&c_down;
	if (arg->context == 0 && arg->sig_context != 0) {
		const ucontext_t *at = (const ucontext_t *)arg->sig_context;
		pc = (uintptr_t)at->uc_mcontext.gregs[REG_RIP];
	}
	if (arg->max > 0)
		arg->buf[0] = pc;
	if (arg->max > 1)
		arg->buf[1] = 0;
}

void *address_of_traceback(void) { return (void *)hook_traceback; }

void *address_of_context(void) { return (void *)hook_context; }

void *address_of_symbolizer(const char *library) {
	void *handle = dlopen(library, RTLD_NOW);
	return handle ? dlsym(handle, "hook_symbolizer") : NULL;
}

uint64_t c_down(uint64_t x, int depth) {
	return goUp(x, depth) * 3 + 1;
}
