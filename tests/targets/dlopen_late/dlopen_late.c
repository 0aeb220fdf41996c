// Loads a library when it is told to (`load` on standard input; answers `loaded ADDRESS`) and then spends most of its
// time there. Told again, it closes that one and loads the next. The libraries are the arguments. See README.md for the
// true chains.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>

#include "../common/target.h"

enum { STEPS = 200000 };

typedef uint64_t plugin_function(uint64_t);

FRAME static uint64_t own_leaf(uint64_t x) {
  for (int i = 0; i < STEPS; i++) x = target_step(x);
  return x;
}

FRAME static plugin_function *load(const char *path) {
  static void *library;
  if (library != NULL) dlclose(library);
  library = dlopen(path, RTLD_NOW);
  plugin_function **plugin = library ? (plugin_function **)dlsym(library, "plugin") : NULL;
  struct link_map *map;
  if (plugin == NULL || dlinfo(library, RTLD_DI_LINKMAP, &map) != 0) {
    fprintf(stderr, "cannot load %s: %s\n", path, dlerror());
    exit(1);
  }
  printf("loaded %lx\n", (unsigned long)map->l_addr);
  fflush(stdout);
  return *plugin;
}

FRAME static uint64_t run(char **paths, uint64_t expected) {
  plugin_function *plugin = NULL;
  uint64_t rounds = 0, expected_of_plugin = 0;
  char command[16];
  while (!target_over(command, sizeof command)) {
    if (strcmp(command, "load") == 0 && *paths != NULL) {
      plugin = load(*paths++);
      expected_of_plugin = plugin(1);
    }
    target_verify(expected, own_leaf(1));
    if (plugin != NULL) target_verify(expected_of_plugin, plugin(1));
    rounds++;
  }
  return rounds;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s LIBRARY...\n", argv[0]);
    return 1;
  }
  target_start();
  uint64_t expected = own_leaf(1);
  target_ready();
  uint64_t rounds = run(argv + 1, expected);
  target_finish(expected, rounds);
  return 0;
}
