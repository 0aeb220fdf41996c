/* Is linked with the library. */
#include "host.h"

extern go_function goFirst;

static struct peers peers = {{goFirst, goFirst}};

FRAME uint64_t round_trip(uint64_t x) { return goFirst(x, DEPTH, (uintptr_t)&peers) + 1; }

int main(void) { return work(); }
