#define _GNU_SOURCE
#include "hooks.h"
#include "../common/traceback.h"
#include "_cgo_export.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

/* How far up frames are followed: all of them are a few words. */
#define REACH 4096
#define DEPTH 16
/* What no code is at. */
#define MADE 0x1000

static __thread uintptr_t saved[DEPTH];
static __thread int n_saved;
static atomic_uintptr_t made = MADE;
static atomic_int makes;

/* A context is the frame pointer of its callback. */
static void hook_context(struct context_arg *arg) {
	if (arg->context != 0) {
		n_saved--;
		return;
	}
	saved[n_saved % DEPTH] = (uintptr_t)__builtin_frame_address(0);
	arg->context = (uintptr_t)&saved[n_saved++ % DEPTH];
}

static void hook_traceback(struct traceback_arg *arg) {
	uintptr_t n = 0, fp;
	if (atomic_load_explicit(&makes, memory_order_relaxed)) {
		for (; n < arg->max; n++)
			arg->buf[n] = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed);
		return;
	}
	if (arg->context != 0) {
		fp = *(uintptr_t *)arg->context;
	} else if (arg->sig_context != 0) {
		const greg_t *regs = ((const ucontext_t *)arg->sig_context)->uc_mcontext.gregs;
		fp = (uintptr_t)regs[REG_RBP];
		if (fp - (uintptr_t)regs[REG_RSP] > REACH)
			return;
		arg->buf[n++] = (uintptr_t)regs[REG_RIP];
	} else {
		return;
	}
	for (uintptr_t first = fp; n < arg->max && fp % 8 == 0 && fp - first < REACH; n++) {
		const uintptr_t *frame = (const uintptr_t *)fp;
		arg->buf[n] = frame[1] - 1;
		if (frame[0] <= fp)
			break;
		fp = frame[0];
	}
	if (n < arg->max)
		arg->buf[n] = 0;
}

static void hook_symbolizer(struct symbolizer_arg *arg) {
	arg->func = arg->pc ? "made" : NULL;
}

void *address_of_traceback(void) { return (void *)hook_traceback; }

void *address_of_context(void) { return (void *)hook_context; }

void *address_of_symbolizer(void) { return (void *)hook_symbolizer; }

void make_addresses(void) { atomic_store(&makes, 1); }

int grow(uint64_t mebibytes) {
	char *memory = malloc(mebibytes << 20);
	if (memory == NULL)
		return 0;
	memset(memory, 1, mebibytes << 20);
	return memory[mebibytes] == 1;
}

static __attribute__((noinline)) uint64_t c_spin(uint64_t x, uint64_t n) {
	for (uint64_t i = 0; i < n; i++)
		x = x * 6364136223846793005 + 1442695040888963407;
	return x;
}

static __attribute__((noinline)) uint64_t c_middle(uint64_t x, uint64_t n) {
	return c_spin(x, n) + 1;
}

uint64_t c_work(uint64_t x, uint64_t n) { return c_middle(x, n) + 1; }

uint64_t c_up(uint64_t x, uint64_t n, int depth) { return goWork(x, n, depth) + 1; }

uint64_t cpu_time(void) {
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
