// Threads that can be asked by signal 40, and threads that cannot. At the end it prints each signal that was handled:
// thread, interrupted instruction, si_code, si_value; and how many system calls were interrupted.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { SIGNAL = 40, ROOM = 1 << 16 };

static struct {
  int tid, code;
  unsigned long pc, value;
} handled[ROOM];
static atomic_int n_handled, interrupted, over;

static void handler(int signal, siginfo_t *info, void *context) {
  (void)signal;
  int i = atomic_fetch_add(&n_handled, 1);
  if (i >= ROOM) abort();
  handled[i].tid = gettid();
  handled[i].code = info->si_code;
  handled[i].value = (unsigned long)info->si_value.sival_ptr;
  handled[i].pc = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
}

static void alternate_stack(void) {
  stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
  if (!stack.ss_sp || sigaltstack(&stack, NULL)) abort();
}

__attribute__((noinline)) static void work(void) {
  for (volatile int i = 0; i < 1000; i++) {
  }
}

static void *willing(void *unused) {
  alternate_stack();
  while (!over) work();
  return unused;
}

static void *deaf(void *unused) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGNAL);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  alternate_stack();
  while (!over) work();
  return unused;
}

static void *stackless(void *unused) {
  while (!over) work();
  return unused;
}

static void *allocating(void *unused) {
  alternate_stack();
  while (!over) {
    for (int i = 0; i < 100; i++) {
      char *block = malloc(100 + i);
      if (!block) abort();
      __asm__ volatile("" : : "r"(block) : "memory");
      free(block);
    }
    work();
  }
  return unused;
}

static void *sleeper(void *unused) {
  alternate_stack();
  while (!over) {
    struct timespec moment = {.tv_nsec = 20000};
    if (nanosleep(&moment, NULL) && errno == EINTR) atomic_fetch_add(&interrupted, 1);
    // Long enough to be sampled there, however seldom it gets a CPU.
    for (int i = 0; i < 100 && !over; i++) work();
  }
  return unused;
}

// Has a filter of system calls that the others do not have.
static void *filtered(void *unused) {
  struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {1, &allow};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) abort();
  return willing(unused);
}

// Less than a handler may need.
static void *cramped(void *unused) { return stackless(unused); }

int main(void) {
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  sigaction(SIGNAL, &action, NULL);
  void *(*const kinds[])(void *) = {willing, willing, deaf, stackless, cramped, sleeper, allocating, filtered};
  enum { N = sizeof kinds / sizeof *kinds };
  pthread_t threads[N];
  for (int i = 0; i < N; i++) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 24 << 10);
    pthread_create(&threads[i], kinds[i] == cramped ? &small : NULL, kinds[i], NULL);
  }
  printf("%p\n", (void *)handler);
  fflush(stdout);
  char byte;
  while (read(0, &byte, 1) > 0) {
  }
  over = 1;
  for (int i = 0; i < N; i++) pthread_join(threads[i], NULL);
  printf("interrupted %d\n", interrupted);
  for (int i = 0; i < n_handled; i++) printf("%d %lx %d %lu\n", handled[i].tid, handled[i].pc, handled[i].code, handled[i].value);
  return 0;
}
