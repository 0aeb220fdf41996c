// Begins threads, one after the other. See README.md for the true chains.

#include <pthread.h>

#include "../common/target.h"

enum { THREADS = 100 };

FRAME static void *thread_leaf(void *x) { return (void *)target_step((uint64_t)x); }

FRAME static pthread_t begin(uint64_t x) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, thread_leaf, (void *)x) != 0) {
    fprintf(stderr, "no thread could be begun\n");
    _exit(1);
  }
  return thread;
}

FRAME static uint64_t round_of_threads(void) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < THREADS; i++) {
    void *result;
    pthread_join(begin(i), &result);
    sum ^= (uint64_t)result;
  }
  return sum;
}

int main(void) {
  char command[1];
  target_start();
  uint64_t expected = round_of_threads();
  target_ready();
  uint64_t rounds = 0;
  while (!target_over(command, sizeof command)) {
    target_verify(expected, round_of_threads());
    rounds++;
  }
  target_finish(expected, rounds);
  return 0;
}
