// Compiled without unwind tables and without frame pointers: rbp holds a number.

#include "bare.h"

#define FRAME __attribute__((noipa))

enum { STEPS = 50000 };

FRAME uint64_t bare_leaf(uint64_t x) {
  for (int i = 0; i < STEPS; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

FRAME uint64_t bare_outer(uint64_t x) {
  uint64_t a = x * 3, b = a * 5 + 1, c = b * 7 + 2, d = c * 11 + 3, e = d * 13 + 4, f = e * 17 + 5;
  uint64_t leaf = bare_leaf(x);
  uint64_t tables = with_tables(leaf);
  return a ^ (b + c) ^ (d + e) ^ f ^ leaf ^ tables;
}
