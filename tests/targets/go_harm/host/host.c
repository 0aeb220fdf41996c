/* Loads go_harm, built as a library, and lets it work on the main thread: host LIBRARY MODE. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
  void *library = argc > 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
  if (library == NULL) {
    fprintf(stderr, "usage: host LIBRARY MODE: %s\n", argc > 2 ? dlerror() : "");
    return 1;
  }
  int (*run)(char *) = (int (*)(char *))dlsym(library, "goRun");
  return run == NULL ? 1 : run(argv[2]) + 0;
}
