// The C between two layers of Go. No frame pointers, no tail calls.

#include "library.h"

#define FRAME __attribute__((noipa))

enum { STEPS = 3000 };

static inline uint64_t burn(uint64_t x) {
  for (int i = 0; i < STEPS; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

FRAME uint64_t c_leaf(uint64_t x) { return burn(x); }

// rbp holds a number across the call, not a frame.
FRAME uint64_t c_step(uint64_t x, int depth, uintptr_t peers) {
  uint64_t before = burn(x);
  uint64_t below = ((struct peers *)peers)->at[depth & 1](before, depth, peers);
  return burn(below ^ before ^ x);
}

FRAME uint64_t c_down(uint64_t x, int depth, uintptr_t peers) {
  uint64_t leaf = c_leaf(x);
  return c_step(leaf, depth, peers) + leaf;
}
