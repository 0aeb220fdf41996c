#include "batch.h"

#include "_cgo_export.h"

#define FRAME __attribute__((noipa))

// A macro, so that the time is the function's own, and not that of one that is inlined into all of them.
#define BURN(x, n) \
  for (int i = 0; i < (n); i++) x = x * 6364136223846793005u + 1442695040888963407u

FRAME uint64_t c_hash(uint64_t x, int n) {
  BURN(x, n * C_PERCENT / 100);
  return x;
}

#ifdef REFACTORED
FRAME uint64_t c_deflate(uint64_t x, int n) {
  BURN(x, n);
  return x;
}

FRAME uint64_t c_pack(uint64_t x, int n) { return c_deflate(x, n) ^ 1; }
#else
FRAME uint64_t c_pack(uint64_t x, int n) {
  BURN(x, n);
  return x ^ 1;
}
#endif

// Half of it is in Go, which this calls back.
FRAME uint64_t c_filter(uint64_t x, int n) {
  BURN(x, n / 2);
  return goScore(x, n / 2) ^ 7;
}
