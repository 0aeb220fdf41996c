// Executes itself again on the line `exec`, and then works elsewhere. See README.md for the true chains.

#include "../common/target.h"

enum { STEPS = 200000 };

static inline uint64_t burn(uint64_t x) {
  for (int i = 0; i < STEPS; i++) x = target_step(x);
  return x;
}

FRAME static uint64_t before_leaf(uint64_t x) { return burn(x); }

FRAME static uint64_t after_leaf(uint64_t x) { return burn(x) ^ 1; }

FRAME static uint64_t after_outer(uint64_t x) { return after_leaf(x) ^ x; }

FRAME static void again(char *path) {
  char *arguments[] = {path, "again", NULL};
  execv("/proc/self/exe", arguments);
  _exit(1);
}

FRAME static uint64_t run(char *path, uint64_t (*round)(uint64_t), uint64_t expected) {
  uint64_t rounds = 0;
  char command[16];
  while (!target_over(command, sizeof command)) {
    if (strcmp(command, "exec") == 0) again(path);
    target_verify(expected, round(1));
    rounds++;
  }
  return rounds;
}

int main(int argc, char **argv) {
  uint64_t (*round)(uint64_t) = argc > 1 ? after_outer : before_leaf;
  target_start();
  uint64_t expected = round(1);
  target_ready();
  uint64_t rounds = run(argv[0], round, expected);
  target_finish(expected, rounds);
  return 0;
}
