// Keeps as many threads busy as the first argument says. See README.md for the true chains.

#define _GNU_SOURCE
#include <pthread.h>

#include "../common/target.h"

enum { STEPS = 200000, MAX_THREADS = 256 };

static uint64_t expected;
static volatile bool over;

FRAME static uint64_t leaf(uint64_t x) {
  for (int i = 0; i < STEPS; i++) x = target_step(x);
  return x;
}

FRAME static void *busy(void *rounds) {
  uint64_t n = 0;
  while (!over) {
    target_verify(expected, leaf(1));
    n++;
  }
  *(uint64_t *)rounds = n;
  return NULL;
}

/* Waits without using any time. SIGTERM, which is blocked, can come only while ppoll waits. */
static void wait_until_over(void) {
  struct pollfd in = {STDIN_FILENO, POLLIN, 0};
  sigset_t none;
  sigemptyset(&none);
  char byte;
  while (!target_terminated && ppoll(&in, 1, NULL, &none) > 0 && read(STDIN_FILENO, &byte, 1) > 0) continue;
}

int main(int argc, char **argv) {
  int threads = argc == 2 ? atoi(argv[1]) : 0;
  if (threads < 1 || threads > MAX_THREADS) {
    fprintf(stderr, "usage: %s THREADS\n", argv[0]);
    return 1;
  }
  target_start();
  sigset_t sigterm;
  sigemptyset(&sigterm);
  sigaddset(&sigterm, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &sigterm, NULL);

  expected = leaf(1);
  static pthread_t thread[MAX_THREADS];
  static uint64_t rounds[MAX_THREADS];
  for (int i = 0; i < threads; i++)
    if (pthread_create(&thread[i], NULL, busy, &rounds[i]) != 0) return 1;

  target_ready();
  wait_until_over();
  over = true;
  uint64_t all = 0;
  for (int i = 0; i < threads; i++) {
    pthread_join(thread[i], NULL);
    all += rounds[i];
  }
  target_finish(expected, all);
  return 0;
}
