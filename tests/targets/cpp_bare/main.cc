// C++ with exceptions around parts that have no unwind tables: one with frame pointers, one without. See README.md for the
// true chains.

#include <stdexcept>

#include "../common/target.h"
#include "bare.h"

enum { STEPS = 50000 };

static inline uint64_t burn(uint64_t x) {
  for (int i = 0; i < STEPS; i++) x = target_step(x);
  return x;
}

namespace ns {

FRAME uint64_t leaf(uint64_t x) { return burn(x); }

FRAME uint64_t thrower(uint64_t x) {
  uint64_t y = leaf(x);
  if (y != 0) throw std::runtime_error("thrown");
  return y;
}

FRAME uint64_t catcher(uint64_t x) {
  try {
    return thrower(x);
  } catch (const std::runtime_error &error) {
    return burn(x ^ static_cast<uint64_t>(error.what()[0]));
  }
}

}  // namespace ns

// What the parts without tables call: it has tables, throws and catches.
extern "C" FRAME uint64_t with_tables(uint64_t x) { return ns::catcher(x) + 1; }

// rbp holds a number when the parts are called, not a frame.
FRAME static uint64_t round_trip(uint64_t x) {
  uint64_t a = target_step(x), b = target_step(a), c = target_step(b), d = target_step(c), e = target_step(d);
  uint64_t framed = framed_outer(a);
  uint64_t bare = bare_outer(framed);
  return a ^ (b + c) ^ (d + e) ^ framed ^ bare ^ x;
}

FRAME static uint64_t run(uint64_t expected) {
  uint64_t rounds = 0;
  char command[1];
  while (!target_over(command, sizeof command)) {
    target_verify(expected, round_trip(1));
    rounds++;
  }
  return rounds;
}

int main() {
  target_start();
  const uint64_t expected = round_trip(1);
  target_ready();
  const uint64_t rounds = run(expected);
  target_finish(expected, rounds);
  return 0;
}
