#define _GNU_SOURCE
#include "hooks.h"
#include "_cgo_export.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

static const char *mode = "sound";
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;


/* Time stamps of the processor in a millisecond, once the program has said how it behaves. */
static unsigned long long stamps;

static int is(const char *name) { return strcmp(mode, name) == 0; }

static unsigned long long milliseconds_now(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ull + now.tv_nsec / 1000000;
}

void behave(const char *how) {
	unsigned long long begin = milliseconds_now(), first = __rdtsc();
	while (milliseconds_now() < begin + 20)
		;
	stamps = (__rdtsc() - first) / 20;
	mode = how;
}

/* Takes as long on any processor, and makes no call: a hook may be interrupted anywhere. */
static void burn(int milliseconds) {
	for (unsigned long long begin = __rdtsc(); __rdtsc() - begin < milliseconds * stamps;)
		;
}

static void misbehave(struct traceback_arg *arg) {
	static const uintptr_t impossible[] = {0x8000000000000000, UINTPTR_MAX, 0xffffffff81000000, 1, 0x700000000123};
	if (is("loop"))
		for (volatile int i = 0;; i++)
			;
	if (is("lock")) {
		pthread_mutex_lock(&lock);
		pthread_mutex_unlock(&lock);
	}
	if (is("slow10"))
		burn(10);
	if (is("slow100"))
		burn(100);
	if (is("overrun"))
		for (int i = 0; i < 40; i++)
			arg->buf[i] = 0x7000300;
	if (is("full"))
		for (uintptr_t i = 0; i < arg->max; i++)
			arg->buf[i] = 0x7000400 + i;
	if (is("garbage"))
		memcpy(arg->buf, impossible, sizeof impossible);
}

static void hook_traceback(struct traceback_arg *arg) {
	if (arg->context == 0 && arg->sig_context == 0)
		abort();
	arg->buf[0] = 0x7000200;
	if (arg->context == 0) {
		arg->buf[0] = (uintptr_t)((const ucontext_t *)arg->sig_context)->uc_mcontext.gregs[REG_RIP];
		arg->buf[1] = 0x7000100;
	}
	errno = ENOTNAM;
	misbehave(arg);
}

static void hook_context(struct context_arg *arg) {
	if (arg->context == 0)
		arg->context = 1;
}

static void hook_symbolizer(struct symbolizer_arg *arg) {
	if (arg->pc == 0)
		return;
	arg->func = "hooked";
	arg->more = 0;
}

void *address_of_traceback(void) { return (void *)hook_traceback; }

void *address_of_context(void) { return (void *)hook_context; }

void *address_of_symbolizer(void) { return (void *)hook_symbolizer; }

uint64_t c_outer(uint64_t x) { return goMiddle(x) * 3 + 1; }

uint64_t c_leaf(uint64_t x) {
	if (pthread_mutex_lock(&lock) != 0)
		abort();
	errno = EDOM;
	double y = 1.5;
	for (int i = 0; i < 300000; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		y = y * 1.0000001 + (double)(x >> 60);
		if (errno != EDOM)
			abort();
	}
	if (pthread_mutex_unlock(&lock) != 0)
		abort();
	return x ^ (uint64_t)y;
}

static pid_t child;
static atomic_int *child_is_over;

int start_child(void) {
	uint64_t expected = c_leaf(1);
	child_is_over = mmap(NULL, sizeof *child_is_over, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (child_is_over == MAP_FAILED)
		return -1;
	pthread_mutex_lock(&lock);
	child = fork();
	pthread_mutex_unlock(&lock);
	if (child != 0)
		return child < 0 ? -1 : 0;
	prctl(PR_SET_NAME, "child");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!*child_is_over)
		if (c_leaf(1) != expected)
			_exit(1);
	_exit(0);
}

int end_child(void) {
	int status;
	if (child == 0)
		return 0;
	*child_is_over = 1;
	return waitpid(child, &status, 0) == child ? status : -1;
}
