// Reads the clock again and again, which runs code of the vDSO. See README.md for the true chains.

#include <time.h>

#include "../../common/target.h"

enum { READS = 100000 };

FRAME static uint64_t now(void) {
  struct timespec t;
  if (clock_gettime(CLOCK_MONOTONIC, &t) != 0) _exit(1);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The clock gives no value that two runs share: the value of a round is how often the clock did not go back. */
FRAME static uint64_t read_clock(void) {
  uint64_t last = now(), forward = 0;
  for (int i = 0; i < READS; i++) {
    uint64_t next = now();
    forward += next >= last;
    last = next;
  }
  return forward;
}

FRAME static uint64_t run(void) {
  uint64_t rounds = 0;
  char command[1];
  while (!target_over(command, sizeof command)) {
    target_verify(READS, read_clock());
    rounds++;
  }
  return rounds;
}

int main(void) {
  target_start();
  target_ready();
  uint64_t rounds = run();
  target_finish(READS, rounds);
  return 0;
}
