// Sixty-five frames of C without frame pointers on the main thread, sixty-three on another; or fewer. See README.md.

#include <pthread.h>

#include "../common/target.h"

enum { LEAF_STEPS = 2000000 };

// On the main thread there are beneath _start, two of libc's, main and run; on both there is burn above.
static int depth = 59;
static uint64_t expected;
static volatile bool over;

FRAME static uint64_t burn(uint64_t x) {
  for (int i = 0; i < LEAF_STEPS; i++) x = target_step(x);
  return x;
}

// Keeps a word over the call: in a register that its frame saves.
FRAME static uint64_t f(uint64_t x, int below) {
  uint64_t own = target_step(x);
  return (below > 1 ? f(own, below - 1) : burn(own)) ^ own;
}

FRAME static uint64_t run(void) {
  uint64_t rounds = 0;
  char command[1];
  while (!over) {
    target_verify(expected, f(1, depth));
    rounds++;
    if (target_over(command, sizeof command)) over = true;
  }
  return rounds;
}

FRAME static void *run_thread(void *unused) {
  while (!over) target_verify(expected, f(1, depth));
  return unused;
}

int main(int argc, char **argv) {
  target_start();
  if (argc > 1) depth = atoi(argv[1]);
  expected = f(1, depth);
  pthread_t thread;
  if (pthread_create(&thread, NULL, run_thread, NULL) != 0) return 1;
  target_ready();
  uint64_t rounds = run();
  pthread_join(thread, NULL);
  target_finish(expected, rounds);
  return 0;
}
