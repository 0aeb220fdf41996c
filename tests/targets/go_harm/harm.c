#define _GNU_SOURCE
#include "harm.h"
#include "../common/traceback.h"
#include "_cgo_export.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define FRAME __attribute__((noipa))

enum { STEPS = 20000, SIGNAL_STACK = 32 * 1024 };

static atomic_uintptr_t contexts;
static atomic_ullong calls;

static void hook_context(uintptr_t *context) {
	if (*context == 0)
		*context = atomic_fetch_add(&contexts, 1) + 1;
}

/* Never called: their addresses are what the hook says. */
FRAME static uint64_t said_of_leaf(uint64_t x) { return x + 1; }
FRAME static uint64_t said_of_context(uint64_t x) { return x + 2; }

static void hook_traceback(struct traceback_arg *arg) {
	atomic_fetch_add(&calls, 1);
	if (arg->max < 3 || (arg->context == 0 && arg->sig_context == 0))
		abort();
	if (arg->context != 0) {
		arg->buf[0] = (uintptr_t)&said_of_context;
		arg->buf[1] = 0;
		return;
	}
	const ucontext_t *at = (const ucontext_t *)arg->sig_context;
	arg->buf[0] = (uintptr_t)at->uc_mcontext.gregs[REG_RIP];
	arg->buf[1] = (uintptr_t)&said_of_leaf;
	arg->buf[2] = 0;
	/* Whoever calls this has to keep the errno of the interrupted code. */
	errno = 1000;
}

void *address_of_traceback(void) { return (void *)hook_traceback; }
void *address_of_context(void) { return (void *)hook_context; }
uint64_t hook_calls(void) { return calls; }

FRAME static uint64_t c_work(uint64_t x) {
	double y = 1.5;
	int before = errno = (int)(x & 0xff);
	for (int i = 0; i < STEPS; i++) {
		x = x * 6364136223846793005u + 1442695040888963407u;
		y = y * 1.0000001 + (double)(x >> 60);
	}
	if (errno != before)
		abort();
	return x ^ (uint64_t)y;
}

FRAME uint64_t c_down(uint64_t x, int depth) { return goUp(c_work(x), depth) * 3 + 1; }

FRAME uint64_t c_storm(uint64_t n) {
	uint64_t x = 0;
	for (uint64_t i = 0; i < n; i++)
		x = goTick(x);
	return x;
}

static void sleep_us(int us) {
	struct timespec time = {us / 1000000, us % 1000000 * 1000L};
	while (us > 0 && nanosleep(&time, &time) != 0)
		continue;
}

struct work {
	int depth, sleep_us;
};

FRAME static uint64_t c_thread(int depth) { return depth < 0 ? c_work(1) + 1 : c_down(1, depth) + 1; }

static void *thread(void *arg) {
	struct work work = *(struct work *)arg;
	free(arg);
	/* Without one a thread is not asked. */
	stack_t stack = {.ss_sp = malloc(SIGNAL_STACK), .ss_size = SIGNAL_STACK};
	if (stack.ss_sp == NULL || sigaltstack(&stack, NULL) != 0)
		abort();
	for (uint64_t expected = c_thread(work.depth);;) {
		if (c_thread(work.depth) != expected)
			abort();
		sleep_us(work.sleep_us);
	}
	return NULL;
}

void c_start_thread(int depth, int sleep_us) {
	struct work *work = malloc(sizeof *work);
	*work = (struct work){depth, sleep_us};
	pthread_t id;
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 256 * 1024);
	if (pthread_create(&id, &attributes, thread, work) != 0)
		abort();
}

/* What the child of a fork works is as good as what its parent does. */
int c_fork(void) {
	uint64_t expected = c_work(1);
	pid_t child = fork();
	if (child == 0) {
		for (int i = 0; i < 200; i++)
			if (c_work(1) != expected)
				_exit(1);
		_exit(42);
	}
	int status = 0;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	return WIFEXITED(status) && WEXITSTATUS(status) == 42 ? 0 : status + 1000000;
}

FRAME int c_call_spawn(void) { return goSpawn() * 3; }

int c_spawn(void) {
	char *arguments[] = {"true", NULL};
	pid_t child;
	int error = posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ);
	if (error != 0)
		return error;
	int status = 0;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	return status == 0 ? 0 : status + 1000000;
}

/* A filter of system calls, before there is a second thread: HARM_SECCOMP=allow lets all pass, log, too, and has some written
 * down, errno lets memfd_create fail, kill ends the process for it. The kernel's headers are not there for every libc (linux/filter.h,
 * linux/seccomp.h). */
__attribute__((constructor)) static void filter(void) {
	struct instruction {
		uint16_t code;
		uint8_t if_equal, if_not;
		uint32_t value;
	};
	enum { LOAD = 0x20, IS_EQUAL = 0x15, RETURN = 0x06 };
	const uint32_t ALLOW = 0x7fff0000, LOG = 0x7ffc0000, FAIL = 0x00050001, KILL = 0x80000000;
	const char *what = getenv("HARM_SECCOMP");
	if (what == NULL)
		return;
	uint32_t action = strcmp(what, "kill") == 0    ? KILL
	                  : strcmp(what, "errno") == 0 ? FAIL
	                  : strcmp(what, "log") == 0   ? LOG
	                                               : ALLOW;
	/* The number of the call is the first word. */
	struct instruction code[] = {
	    {LOAD, 0, 0, 0},
	    {IS_EQUAL, 0, 1, SYS_memfd_create},
	    {RETURN, 0, 0, action},
	    {RETURN, 0, 0, ALLOW},
	};
	struct {
		uint16_t length;
		struct instruction *code;
	} program = {sizeof code / sizeof code[0], code};
	/* PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER */
	if (prctl(38, 1, 0, 0, 0) != 0 || prctl(22, 2, &program) != 0)
		abort();
}
