#include "batch.h"

#include "_cgo_export.h"

#define FRAME __attribute__((noipa))

static inline uint64_t burn(uint64_t x, int n) {
  for (int i = 0; i < n; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

FRAME uint64_t c_hash(uint64_t x, int n) { return burn(x, n * C_PERCENT / 100); }

#ifdef REFACTORED
FRAME uint64_t c_deflate(uint64_t x, int n) { return burn(x ^ 5, n); }
FRAME uint64_t c_pack(uint64_t x, int n) { return c_deflate(x, n) ^ 1; }
#else
FRAME uint64_t c_pack(uint64_t x, int n) { return burn(x ^ 5, n) ^ 1; }
#endif

// Half of it is in Go, which this calls back.
FRAME uint64_t c_filter(uint64_t x, int n) {
  uint64_t before = burn(x ^ 7, n / 2);
  return goScore(before, n / 2) ^ before;
}
