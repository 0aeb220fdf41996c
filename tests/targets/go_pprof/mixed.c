//go:build mixed

#include <stdint.h>

#include "_cgo_export.h"

#define FRAME __attribute__((noipa))

FRAME uint64_t c_share_leaf(uint64_t x, int n) {
  for (int i = 0; i < n; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

FRAME uint64_t c_share(uint64_t x, int n) {
  uint64_t leaf = c_share_leaf(x, n);
  uint64_t back = goShare(leaf, 2 * n);
  return back ^ leaf;
}
