/*
 * A program without Go, with a table of hooks. One thread does what the first argument says, and ends the program if it
 * notices anything. The main thread waits in epoll_wait, which must not be disturbed, and obeys lines.
 *
 * spin   runs, with a value of its own in every register, its flags and its red zone
 * futex  waits for a word
 * pipe   waits for a byte
 * poll   waits for a pipe to be readable
 * wait   waits for a child
 */
#define _GNU_SOURCE
#include "traceback_hooks.h"
#include <errno.h>
#include <fenv.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { WORKER = 1, MAIN = 9 };

static __thread uintptr_t who;

static void traceback(struct profiler_traceback *arg) {
    const ucontext_t *context = (const ucontext_t *)arg->sig_context;
    if (arg->context != 0 || arg->max < 3) {
        arg->buf[0] = 0;
        return;
    }
    arg->buf[0] = context->uc_mcontext.gregs[REG_RIP];
    arg->buf[1] = 0x7000000 + who;
    arg->buf[2] = 0;
}

/* One function inlined in another. */
void hook_symbolizer(struct profiler_symbolizer *arg) {
    if (arg->pc != 0) {
        char *name = malloc(64);
        snprintf(name, 64, "%s_%lx", arg->data ? "script" : "inlined", arg->pc);
        arg->func = name;
        arg->entry = arg->pc;
        arg->more = !arg->data;
        arg->data = 1;
    }
}

PROFILER_TRACEBACK_HOOKS(traceback, hook_symbolizer);

static void *volatile hook_none;
static int channel[2];
static int word;
static volatile unsigned long rounds;
static volatile int is_over;

static void fail(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    fflush(stdout);
    _exit(3);
}

#define EXPECT(condition)                                                                                              \
    if (!(condition))                                                                                                  \
    fail(#condition)

/* Returns 0 if everything is as it was put there. */
int spin_round(unsigned long seed);
int spin_round_wide(unsigned long seed);

#define SPIN(name, fill, check)                                                                                        \
    __asm__(".text\n.globl " name "\n.type " name ", @function\n" name ":\n"                                           \
            ".irp r, rbx, rbp, r12, r13, r14, r15\npush %\\r\n.endr\n"                                                 \
            ".irp r, rdx, rsi, rbx, rbp, r8, r9, r10, r11, r12, r13, r14, r15\nmov %rdi, %\\r\n.endr\n"                \
            ".irp n, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128\n"                              \
            "mov %rdi, -\\n(%rsp)\n.endr\n" fill "mov $30000, %ecx\nmov %rdi, %rax\nstc\n"                             \
            "1: dec %ecx\njnz 1b\njnc 2f\n"                                                                            \
            ".irp r, rax, rdx, rsi, rbx, rbp, r8, r9, r10, r11, r12, r13, r14, r15\ncmp %rdi, %\\r\njne 2f\n.endr\n"   \
            ".irp n, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128\n"                              \
            "cmp %rdi, -\\n(%rsp)\njne 2f\n.endr\n" check "xor %eax, %eax\njmp 3f\n2: mov $1, %eax\n3:\n"              \
            ".irp r, r15, r14, r13, r12, rbp, rbx\npop %\\r\n.endr\nret\n")

SPIN("spin_round", ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\nmovq %rdi, %xmm\\n\n.endr\n",
     ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\nmovq %xmm\\n, %rax\ncmp %rdi, %rax\njne 2f\n.endr\n");
SPIN("spin_round_wide",
     ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, "
     "29, 30, 31\nvpbroadcastq %rdi, %zmm\\n\n.endr\n.irp k, 1, 2, 3, 4, 5, 6, 7\nkmovw %edi, %k\\k\n.endr\n",
     ".irp k, 1, 2, 3, 4, 5, 6, 7\nkmovw %k\\k, %eax\ncmp %di, %ax\njne 2f\n.endr\nvmovq %xmm0, %rax\ncmp %rdi, %rax\n"
     "jne 2f\n.irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, "
     "27, 28, 29, 30, 31\nvpcmpeqq %zmm0, %zmm\\n, %k1\nkmovw %k1, %eax\ncmp $0xff, %eax\njne 2f\n.endr\nvzeroupper\n");

static void spin(void) {
    int is_wide = __builtin_cpu_supports("avx512f");
    fesetround(FE_UPWARD);
    for (unsigned long seed = 0x1234567890abcdef; !is_over; seed += 0x123456789) {
        EXPECT((is_wide ? spin_round_wide(seed) : spin_round(seed)) == 0);
        EXPECT(fegetround() == FE_UPWARD);
        rounds++;
    }
}

static void wait_for_word(void) {
    for (int seen = 0; !is_over; seen++) {
        while (__atomic_load_n(&word, __ATOMIC_ACQUIRE) == seen) {
            long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
            EXPECT(result == 0 || errno == EAGAIN);
        }
        rounds++;
    }
}

static void wait_for_byte(void) {
    while (!is_over) {
        char byte;
        EXPECT(read(channel[0], &byte, 1) == 1 && byte == 'x');
        rounds++;
    }
}

static void wait_for_poll(void) {
    while (!is_over) {
        struct pollfd polled = {channel[0], POLLIN, 0};
        char byte;
        EXPECT(poll(&polled, 1, -1) == 1);
        EXPECT(read(channel[0], &byte, 1) == 1 && byte == 'x');
        rounds++;
    }
}

static pid_t start_child(void) {
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(channel[1]);
        _exit(read(channel[0], &byte, 1) == 1 ? 42 : 1);
    }
    return child;
}

static void wait_for_child(pid_t child) {
    while (!is_over) {
        int status;
        EXPECT(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 42);
        /* Before anybody is told of the round: there is a child whenever the program is looked at. */
        if (!is_over)
            child = start_child();
        rounds++;
    }
}

static void *work(void *argument) {
    const char *what = argument;
    pid_t child = strcmp(what, "wait") ? 0 : start_child();
    who = WORKER;
    printf("%d %d\n", WORKER, gettid());
    printf("%d %d\n", MAIN, getpid());
    fflush(stdout);
    if (!strcmp(what, "spin"))
        spin();
    else if (!strcmp(what, "futex"))
        wait_for_word();
    else if (!strcmp(what, "pipe"))
        wait_for_byte();
    else if (!strcmp(what, "poll"))
        wait_for_poll();
    else
        wait_for_child(child);
    return NULL;
}

/* Ends what the thread waits for. */
static void wake(void) {
    __atomic_add_fetch(&word, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    EXPECT(write(channel[1], "x", 1) == 1);
}

/* Lets the thread work once more. */
static void work_once(void) {
    unsigned long before = rounds;
    wake();
    while (rounds == before)
        usleep(100);
}

int main(int argc, char **argv) {
    char line[64];
    pthread_t worker;
    struct epoll_event event = {EPOLLIN, {0}};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    who = MAIN;
    EXPECT(argc == 2 && pipe(channel) == 0 && epoll >= 0);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event) == 0);
    EXPECT(pthread_create(&worker, NULL, work, argv[1]) == 0);
    for (;;) {
        EXPECT(epoll_wait(epoll, &event, 1, -1) == 1);
        ssize_t n = read(0, line, sizeof line);
        EXPECT(n >= 0);
        if (n == 0)
            break;
        if (memchr(line, '\n', n)) {
            work_once();
            printf("works\n");
            fflush(stdout);
        }
    }
    work_once();
    is_over = 1;
    wake();
    pthread_join(worker, NULL);
    printf("rounds %lu\n", rounds);
    return hook_none != NULL;
}
