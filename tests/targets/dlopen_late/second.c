// The library that takes the place of plugin.c. Its functions have the same frames at the same addresses, so what was
// known of plugin.c fits and gives wrong names.

#include "../common/target.h"

enum { LEAF_STEPS = 600000, OWN_STEPS = 200000 };

FRAME uint64_t second_leaf(uint64_t x) {
  for (int i = 0; i < LEAF_STEPS; i++) x = target_step(x);
  return x ^ 1;
}

FRAME uint64_t second_outer(uint64_t x) {
  for (int i = 0; i < OWN_STEPS; i++) x = target_step(x);
  return second_leaf(x) ^ x;
}

uint64_t (*plugin)(uint64_t) = second_outer;
