// Is linked with the library, and throws exceptions through its own frames between two calls.
#include <stdexcept>

extern "C" {
#include "host.h"

extern go_function goFirst;
}

static struct peers peers = {{goFirst, goFirst}};

namespace host {

// What the library gave, thrown.
struct Result : std::runtime_error {
  uint64_t value;
  explicit Result(uint64_t v) : std::runtime_error("result"), value(v) {}
};

FRAME uint64_t call(uint64_t x) { throw Result(goFirst(x, DEPTH, (uintptr_t)&peers)); }

}  // namespace host

extern "C" FRAME uint64_t round_trip(uint64_t x) {
  try {
    return host::call(x) + 1;
  } catch (const host::Result &result) {
    return result.value + 1;
  }
}

int main() { return work(); }
