// The C at the bottom. No frame pointers, no tail calls.

#include "deep.h"

#define FRAME __attribute__((noipa))

enum { STEPS = 200000 };

static inline uint64_t burn(uint64_t x) {
  for (int i = 0; i < STEPS; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

FRAME uint64_t c_leaf(uint64_t x) { return burn(x); }

uint64_t c_deep(uint64_t x, int n);

FRAME uint64_t c_deep(uint64_t x, int n) {
  uint64_t below = n == 1 ? c_leaf(x) : c_deep(x + 1, n - 1);
  return (below ^ x) * 3;
}

FRAME uint64_t c_bottom(uint64_t x, int n) { return c_deep(x, n) + 1; }
