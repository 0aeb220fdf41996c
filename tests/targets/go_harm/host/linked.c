/* Is linked with go_harm, built as a library, and lets it work on the main thread: linked MODE. */
#include <stdio.h>

extern int goRun(char *mode);

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: linked MODE\n");
    return 1;
  }
  return goRun(argv[1]) + 0;
}
