/* System calls that a signal ends early, and never restarts even with SA_RESTART (signal(7)), beside some that it does. */
#define _GNU_SOURCE
#include "harm.h"
#include "_cgo_export.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static const struct timespec SHORT = {0, 200000};

struct files {
	int epoll, timer, sockets[2], semaphores;
};

#define FRAME __attribute__((noipa))

static atomic_ulong all, rounds;

static long with_ppoll(const struct files *files) {
	struct pollfd in = {files->sockets[0], POLLIN, 0};
	return ppoll(&in, 1, &SHORT, NULL);
}

static long with_pselect(const struct files *files) {
	fd_set in;
	FD_ZERO(&in);
	FD_SET(files->sockets[0], &in);
	return pselect(files->sockets[0] + 1, &in, NULL, NULL, &SHORT, NULL);
}

static long with_epoll(const struct files *files) {
	struct epoll_event event;
	return epoll_wait(files->epoll, &event, 1, 1);
}

static long with_nanosleep(const struct files *files) {
	(void)files;
	return nanosleep(&SHORT, NULL);
}

static long with_futex(const struct files *files) {
	(void)files;
	/* FUTEX_WAIT_PRIVATE of linux/futex.h, which is not there for every libc. */
	enum { WAIT = 128 };
	int word = 0;
	return syscall(SYS_futex, &word, WAIT, 0, &SHORT);
}

static long with_read(const struct files *files) {
	struct itimerspec once = {{0, 0}, SHORT};
	uint64_t expirations;
	timerfd_settime(files->timer, 0, &once, NULL);
	return read(files->timer, &expirations, sizeof expirations);
}

static long with_recv(const struct files *files) {
	char byte;
	return recv(files->sockets[0], &byte, 1, 0);
}

static long with_semaphore(const struct files *files) {
	struct sembuf down = {0, -1, 0};
	return semtimedop(files->semaphores, &down, 1, &SHORT);
}

static long with_sigtimedwait(const struct files *files) {
	(void)files;
	sigset_t none;
	sigemptyset(&none);
	return sigtimedwait(&none, NULL, &SHORT);
}

static struct {
	const char *name;
	long (*call)(const struct files *);
	atomic_ulong interrupted;
} waits[] = {
    {"ppoll", with_ppoll, 0},         {"pselect", with_pselect, 0},     {"epoll_wait", with_epoll, 0},
    {"nanosleep", with_nanosleep, 0}, {"futex", with_futex, 0},         {"read", with_read, 0},
    {"recv", with_recv, 0},           {"semtimedop", with_semaphore, 0}, {"sigtimedwait", with_sigtimedwait, 0},
};

enum { WAITS = sizeof waits / sizeof waits[0] };

static struct files open_files(void) {
	struct files files = {
	    .epoll = epoll_create1(EPOLL_CLOEXEC),
	    .timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC),
	    .semaphores = semget(IPC_PRIVATE, 1, 0600),
	};
	/* Rounded up to a tick of the kernel. */
	struct timeval moment = {0, 200};
	if (files.epoll < 0 || files.timer < 0 || files.semaphores < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, files.sockets) != 0 ||
	    setsockopt(files.sockets[0], SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof moment) != 0)
		abort();
	return files;
}

FRAME static void c_waits(const struct files *files) {
	for (int which = 0; which < WAITS; which++) {
		/* Some time in user mode, where threads are asked. */
		c_down(1, -1);
		errno = 0;
		if (waits[which].call(files) < 0 && errno == EINTR)
			waits[which].interrupted++;
		all++;
	}
	rounds++;
}

void c_wait_for_ever(void) {
	struct files files = open_files();
	for (;;)
		c_waits(&files);
}

static void *thread(void *arg) {
	c_wait_for_ever();
	return arg;
}

void c_start_waiting_thread(void) {
	pthread_t id;
	if (pthread_create(&id, NULL, thread, NULL) != 0)
		abort();
}

unsigned long c_rounds_of_waits(void) { return rounds; }

const char *c_interrupted(void) {
	static char text[1024];
	int length = snprintf(text, sizeof text, "calls=%lu", atomic_load(&all));
	for (int which = 0; which < WAITS; which++)
		length += snprintf(text + length, sizeof text - (size_t)length, " %s=%lu", waits[which].name,
		                   atomic_load(&waits[which].interrupted));
	return text;
}
