// Compiled without unwind tables, with frame pointers.

#include "bare.h"

#define FRAME __attribute__((noipa))

enum { STEPS = 50000 };

FRAME uint64_t framed_leaf(uint64_t x) {
  for (int i = 0; i < STEPS; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

FRAME uint64_t framed_outer(uint64_t x) {
  uint64_t leaf = framed_leaf(x);
  return with_tables(leaf) ^ leaf;
}
