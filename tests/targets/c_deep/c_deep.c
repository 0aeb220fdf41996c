// A known chain of 300 frames, on the main thread and on a pthread. See README.md for the true chains.

#include <pthread.h>

#include "../common/target.h"

enum { CYCLES = 100, LEAF_STEPS = 200000, OWN_STEPS = 200 };

static uint64_t expected;
static volatile bool over;

FRAME static uint64_t burn(uint64_t x, int n) {
  for (int i = 0; i < n; i++) x = target_step(x);
  return x;
}

static inline uint64_t burn_here(uint64_t x) {
  for (int i = 0; i < OWN_STEPS; i++) x = target_step(x);
  return x;
}

FRAME static uint64_t c_leaf(uint64_t x) { return burn(x, LEAF_STEPS) + 1; }

uint64_t f0(uint64_t x, int cycles);

// The frame's size is known only when it runs, so the compiler finds the caller through rbp.
FRAME uint64_t f2(uint64_t x, int cycles) {
  volatile uint64_t pad[1 + (x & 15)];
  pad[x & 15] = burn_here(x);
  uint64_t below = cycles > 1 ? f0(pad[x & 15], cycles - 1) : c_leaf(pad[x & 15]);
  return below ^ pad[x & 15];
}

// The frame is aligned more than the ABI asks for, so where the caller is stands in memory (a DWARF expression).
FRAME uint64_t f1(uint64_t x, int cycles) {
  _Alignas(64) volatile uint64_t pad[8];
  pad[x & 7] = burn_here(x);
  return f2(pad[x & 7], cycles) + pad[x & 7];
}

// rbp holds a number, not a frame.
FRAME uint64_t f0(uint64_t x, int cycles) {
  uint64_t a = burn_here(x), b = target_step(a), c = target_step(b), d = target_step(c), e = target_step(d);
  uint64_t below = f1(a, cycles);
  return below ^ a ^ (b + c) ^ (d + e) ^ x;
}

FRAME static uint64_t run(void) {
  uint64_t rounds = 0;
  char command[1];
  while (!over) {
    target_verify(expected, f0(1, CYCLES));
    rounds++;
    if (target_over(command, sizeof command)) over = true;
  }
  return rounds;
}

FRAME static void *run_thread(void *rounds) {
  uint64_t n = 0;
  while (!over) {
    target_verify(expected, f0(1, CYCLES));
    n++;
  }
  *(uint64_t *)rounds = n;
  return NULL;
}

int main(void) {
  target_start();
  expected = f0(1, CYCLES);
  uint64_t others = 0;
  pthread_t thread;
  if (pthread_create(&thread, NULL, run_thread, &others) != 0) return 1;
  target_ready();
  uint64_t own = run();
  pthread_join(thread, NULL);
  target_finish(expected, own + others);
  return 0;
}
