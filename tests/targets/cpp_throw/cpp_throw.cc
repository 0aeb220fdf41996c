// Throws through several frames and catches, again and again. See README.md for the true chains.

#include <stdexcept>

#include "../common/target.h"

namespace ns {

FRAME uint64_t burn(uint64_t x, int n) {
  for (int i = 0; i < n; i++) x = target_step(x);
  return x;
}

// Its destructor runs while an exception passes.
struct Guard {
  uint64_t &value;
  explicit Guard(uint64_t &v) : value(v) {}
  FRAME ~Guard() { value = burn(value, 1000); }
};

FRAME uint64_t thrower(uint64_t x) {
  uint64_t y = burn(x, 20000);
  if (y != 0) throw std::runtime_error("thrown");
  return y;
}

FRAME uint64_t middle(uint64_t x, uint64_t &seen) {
  Guard guard(seen);
  return thrower(x + 1) + 1;
}

namespace detail {
FRAME uint64_t outer(uint64_t x, uint64_t &seen) {
  Guard guard(seen);
  return middle(x + 1, seen) + 1;
}
}  // namespace detail

class Catcher {
 public:
  FRAME uint64_t round() {
    uint64_t seen = 1;
    for (int i = 0; i < 100; i++) {
      try {
        seen += detail::outer(seen, seen);
      } catch (const std::runtime_error &e) {
        seen = burn(seen ^ static_cast<uint64_t>(e.what()[0]), 1000);
      }
    }
    return seen;
  }
};

}  // namespace ns

FRAME static uint64_t run(uint64_t expected) {
  ns::Catcher catcher;
  uint64_t rounds = 0;
  char command[1];
  while (!target_over(command, sizeof command)) {
    target_verify(expected, catcher.round());
    rounds++;
  }
  return rounds;
}

int main() {
  target_start();
  const uint64_t expected = ns::Catcher().round();
  target_ready();
  const uint64_t rounds = run(expected);
  target_finish(expected, rounds);
  return 0;
}
