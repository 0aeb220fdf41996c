// Forks children that work and never call exec, one after the other: forks ROUNDS. See README.md for the true chains.

#include <sys/wait.h>

#include "../common/target.h"

enum { STEPS = 300000, CHILD_ROUNDS = 20 };

static inline uint64_t burn(uint64_t x) {
  for (int i = 0; i < STEPS; i++) x = target_step(x);
  return x;
}

FRAME static uint64_t parent_leaf(uint64_t x) { return burn(x); }

FRAME static uint64_t child_leaf(uint64_t x) { return burn(x) ^ 1; }

FRAME static void child_work(uint64_t expected) {
  for (int i = 0; i < CHILD_ROUNDS; i++) target_verify(expected, child_leaf(1));
  _exit(0);
}

FRAME static uint64_t round_of_both(uint64_t expected_of_child) {
  pid_t child = fork();
  if (child == 0) child_work(expected_of_child);
  uint64_t own = 0;
  for (int i = 0; i < CHILD_ROUNDS; i++) own ^= parent_leaf(i);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
    fprintf(stderr, "a child ended with status %x\n", status);
    _exit(1);
  }
  return own;
}

FRAME static void run(int rounds, uint64_t expected, uint64_t expected_of_child) {
  for (int i = 0; i < rounds; i++) target_verify(expected, round_of_both(expected_of_child));
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 1;
  target_start();
  uint64_t expected_of_child = child_leaf(1);
  uint64_t expected = round_of_both(expected_of_child);
  target_ready();
  run(rounds, expected, expected_of_child);
  target_finish(expected, rounds);
  return 0;
}
