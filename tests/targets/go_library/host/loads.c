/* Loads one library, or two that then call each other: loads FIRST [SECOND]. */
#include <dlfcn.h>

#include "host.h"

static struct peers peers;

/* Both call goFirst at depth 3 and 1, and the other at 2 and 0. */
FRAME uint64_t round_trip(uint64_t x) { return peers.at[DEPTH & 1](x, DEPTH, (uintptr_t)&peers) + 1; }

static go_function *load(const char *path, const char *name) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  go_function *function = library ? (go_function *)dlsym(library, name) : NULL;
  if (function == NULL) {
    fprintf(stderr, "cannot load %s: %s\n", path, dlerror());
    exit(1);
  }
  return function;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s FIRST [SECOND]\n", argv[0]);
    return 1;
  }
  peers.at[1] = load(argv[1], "goFirst");
  peers.at[0] = argc > 2 ? load(argv[2], "goSecond") : peers.at[1];
  return work();
}
