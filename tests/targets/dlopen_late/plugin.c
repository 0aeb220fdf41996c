// The library that comes late. No frame pointers.

#include "../common/target.h"

enum { LEAF_STEPS = 600000, OWN_STEPS = 200000 };

FRAME uint64_t plugin_leaf(uint64_t x) {
  for (int i = 0; i < LEAF_STEPS; i++) x = target_step(x);
  return x;
}

FRAME uint64_t plugin_outer(uint64_t x) {
  for (int i = 0; i < OWN_STEPS; i++) x = target_step(x);
  return plugin_leaf(x) ^ x;
}

uint64_t (*plugin)(uint64_t) = plugin_outer;
