// Burns time in signal handlers, one on the thread's stack and one on an alternate stack. See README.md for the
// true chains.

#include <sys/time.h>

#include "../common/target.h"

enum { LEAF_STEPS = 300000, HANDLER_STEPS = 1000000, INTERVAL_US = 8000 };

static uint64_t expected_in_handler;

FRAME static uint64_t handler_leaf(uint64_t x) {
  for (int i = 0; i < HANDLER_STEPS; i++) x = target_step(x);
  return x;
}

FRAME static uint64_t handler_step(uint64_t x) { return handler_leaf(x ^ 1) ^ x; }

FRAME static void on_prof(int signal) {
  uint64_t got = handler_step((uint64_t)signal >> 16);
  target_verify(expected_in_handler, got);
}

FRAME static void on_vtalrm_altstack(int signal) {
  uint64_t got = handler_step((uint64_t)signal >> 16);
  target_verify(expected_in_handler, got);
}

FRAME static uint64_t leaf(uint64_t x) {
  for (int i = 0; i < LEAF_STEPS; i++) x = target_step(x);
  return x;
}

FRAME static uint64_t step(uint64_t x) { return leaf(x + 1) ^ x; }

FRAME static uint64_t run(uint64_t expected) {
  uint64_t rounds = 0;
  char command[1];
  while (!target_over(command, sizeof command)) {
    target_verify(expected, step(1));
    rounds++;
  }
  return rounds;
}

static void handle(int signal, void (*handler)(int), int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = flags | SA_RESTART;
  sigfillset(&action.sa_mask);
  sigaction(signal, &action, NULL);
}

int main(void) {
  target_start();
  expected_in_handler = handler_step(0);
  uint64_t expected = step(1);

  stack_t alternate = {.ss_size = 1 << 16};
  alternate.ss_sp = malloc(alternate.ss_size);
  if (alternate.ss_sp == NULL || sigaltstack(&alternate, NULL) != 0) return 1;
  handle(SIGPROF, on_prof, 0);
  handle(SIGVTALRM, on_vtalrm_altstack, SA_ONSTACK);
  struct itimerval every = {{0, INTERVAL_US}, {0, INTERVAL_US}};
  setitimer(ITIMER_PROF, &every, NULL);
  every.it_value.tv_usec = INTERVAL_US / 2;
  setitimer(ITIMER_VIRTUAL, &every, NULL);

  target_ready();
  uint64_t rounds = run(expected);
  target_finish(expected, rounds);
  return 0;
}
