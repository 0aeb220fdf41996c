#define _GNU_SOURCE
#include "hooks.h"
#include "_cgo_export.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

struct traceback_arg {
	uintptr_t context;
	uintptr_t sig_context;
	uintptr_t *buf;
	uintptr_t max;
};

static __thread uintptr_t self, depth;

void hook_context(void *arg)
{
	uintptr_t *context = arg;
	if (*context == 0) {
		*context = self * 0x100000 + ++depth * 0x100;
		return;
	}
	/* They are released in the reverse order. */
	if (*context != self * 0x100000 + depth-- * 0x100)
		abort();
}

/* Set from outside: how many words to write. */
volatile int hook_words = 2;
/* Set from outside: unwind from the hook itself. */
volatile int hook_unwinds;
/* Set from outside: the stranger is to send itself signal 63 as the kernel does that has no memory left. */
volatile int hook_without_info;
/* Set from outside: the stranger is to start a child and to wait for whichever child ends first. */
volatile int hook_waits;
/* That child, and who was waited for. */
volatile int hook_child, hook_waited;
/* Set from outside: the stranger is to take so many MiB of memory; 0 when that is done. */
volatile int hook_grows;
/* No hook. */
void *volatile hook_none;

struct walk {
	int n;
	uintptr_t pcs[4];
};

static _Unwind_Reason_Code frame(struct _Unwind_Context *context, void *arg)
{
	struct walk *walk = arg;
	walk->pcs[walk->n++] = _Unwind_GetIP(context);
	return walk->n == 4 ? _URC_END_OF_STACK : _URC_NO_REASON;
}

void hook_traceback(void *arg)
{
	struct traceback_arg *t = arg;
	if (t->max != 32 || (t->context == 0 && t->sig_context == 0))
		abort();
	uintptr_t first = t->context + 1, second = t->context + 2;
	if (t->context == 0) {
		first = ((ucontext_t *)t->sig_context)->uc_mcontext.gregs[REG_RIP];
		second = 0x7000000 + self;
	} else if (t->sig_context != 0 || t->context / 0x100000 != self) {
		abort();
	}
	t->buf[0] = first;
	t->buf[1] = second;
	/* Go's own signals come here, too: their buffers are neither cleared nor guarded. */
	if (t->buf[t->max] != 0x64726175675f666f)
		return;
	for (uintptr_t i = 2; i < t->max; i++)
		if (t->buf[i] != 0)
			abort();
	for (int i = 2; i < hook_words; i++)
		t->buf[i] = i;
	if (hook_unwinds && t->context == 0) {
		/* This function, x_cgo_callers, the signal frame, the interrupted code. */
		struct walk walk = {0};
		_Unwind_Backtrace(frame, &walk);
		t->buf[2] = walk.pcs[3];
	}
	errno = 1000;
}

struct symbolizer_arg {
	uintptr_t pc;
	const char *file;
	uintptr_t lineno;
	const char *func;
	uintptr_t entry;
	uintptr_t more;
	uintptr_t data;
};

/* What the symbolizer does wrong for address 0x666, set from outside. */
enum { NOTHING, CRASH, LOOP, LOCK, ALLOCATE, EXIT, NEVER_ENDS, WILD, UNTERMINATED, MARKUP, MEDDLE };
volatile int symbolizer_fault;
/* The address at which the symbolizer begins to do it. */
static const uintptr_t bad = 0x666;

static void misbehave(struct symbolizer_arg *s)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	switch (symbolizer_fault) {
	case CRASH:
		*(volatile int *)8 = 1;
		break;
	case LOOP:
		for (;;)
			;
	case LOCK:
		pthread_mutex_lock(&lock);
		pthread_mutex_lock(&lock);
		break;
	case ALLOCATE:
		for (;;)
			memset(malloc(1 << 24), 1, 1 << 24);
	case EXIT:
		exit(0);
	case NEVER_ENDS:
		s->more = 1;
		break;
	case WILD:
		s->func = (const char *)0xdead00000000beef;
		s->file = (const char *)1;
		break;
	case UNTERMINATED:
		s->func = memset(malloc(1 << 20), 'x', 1 << 20);
		break;
	case MARKUP:
		s->func = "\x1b[2J\n;</text><script>\xff";
		break;
	case MEDDLE: {
		/* What a snapshot must not be able to do. */
		int done = kill(getppid(), SIGKILL) == 0 || write(1, "harm\n", 5) == 5 || fork() >= 0 ||
			   open("/tmp/profiler-harm", O_WRONLY | O_CREAT, 0600) >= 0;
		s->func = done ? "harm done" : "no harm done";
		s->lineno = open("/proc/self/maps", O_RDONLY) >= 0;
		break;
	}
	}
}

/* Each address is inlined_N, inlined in outer_N. */
void hook_symbolizer(void *arg)
{
	static uintptr_t calls;
	static char name[32];
	struct symbolizer_arg *s = arg;
	if (s->pc == 0) {
		/* Every conversation is ended before the next one begins. */
		if (s->data != 0 && --calls != 0)
			abort();
		return;
	}
	if (s->data == 0)
		calls++;
	s->more = s->data == 0;
	snprintf(name, sizeof name, s->data == 0 ? "inlined_%lx" : "outer_%lx", s->pc);
	s->func = name;
	s->file = "names.c";
	s->lineno = s->pc + s->data;
	s->entry = s->pc & ~0xfful;
	s->data = 1;
	if (s->pc == bad)
		misbehave(s);
}

static long send_without_info(void)
{
	siginfo_t none = {0};
	hook_without_info = 0;
	return syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), 63, &none);
}

static int grow(void)
{
	void *memory = mmap(NULL, (size_t)hook_grows << 20, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	hook_grows = 0;
	return memory == MAP_FAILED ? -1 : 0;
}

static int wait_for_any_child(void)
{
	int child = fork();
	if (child == 0)
		for (;;)
			pause();
	hook_waits = 0;
	hook_child = child;
	hook_waited = waitpid(-1, NULL, 0);
	return hook_waited == child && waitpid(-1, NULL, 0) == -1 && errno == ECHILD ? 0 : -1;
}

static void *stranger(void *tid)
{
	self = 9;
	*(volatile int *)tid = gettid();
	for (uintptr_t expected = c_leaf(self);;)
		if (c_leaf(self) != expected || (hook_without_info && send_without_info() != 0) ||
		    (hook_grows && grow() != 0) || (hook_waits && wait_for_any_child() != 0))
			abort();
	return NULL;
}

int start_stranger(void)
{
	static volatile int tid;
	pthread_t thread;
	if (pthread_create(&thread, NULL, stranger, (void *)&tid) != 0)
		abort();
	while (tid == 0)
		;
	return tid;
}

void c_outer(uintptr_t who)
{
	self = who;
	goMiddle(who);
}

void c_inner(uintptr_t who)
{
	goInner(who);
}

uint64_t c_leaf(uintptr_t who)
{
	uint64_t sum = 1;
	double x = 1.5;
	errno = (int)who;
	for (int i = 0; i < 300000; i++) {
		sum = sum * 6364136223846793005u + 1442695040888963407u;
		x = x * 1.0000001 + (double)(sum >> 60);
		if (errno != (int)who)
			abort();
	}
	return sum ^ (uint64_t)x;
}
