// The C between the goroutine and its callback, and the C below the callback. No frame pointers.

#include "moving.h"

#include "_cgo_export.h"

#define FRAME __attribute__((noipa))

static inline uint64_t burn(uint64_t x, int n) {
  for (int i = 0; i < n; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

FRAME uint64_t c_leaf(uint64_t x) { return burn(x, 30000); }

FRAME uint64_t c_outer_step(uint64_t x) {
  uint64_t inner = goInner(x);
  return burn(inner ^ x, 10000);
}

FRAME uint64_t c_outer(uint64_t x) {
  uint64_t step = c_outer_step(burn(x, 1000));
  uint64_t leaf = c_leaf(step);
  return leaf ^ step ^ x;
}

FRAME uint64_t c_inner(uint64_t x) {
  uint64_t leaf = c_leaf(x ^ 1);
  return burn(leaf ^ x, 1000);
}
