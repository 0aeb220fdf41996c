// Makes machine code while it runs, with frame pointers and a perf map, as just-in-time compilers do. See README.md for
// the true chains.

#define _GNU_SOURCE
#include <sys/mman.h>

#include "../common/target.h"

enum { LONG = 100000, SHORT = 2, STORM = 20000, PAGE = 4096 };

/* Arithmetic for so many steps, and a function that calls `inner` with what it was given. */
typedef uint64_t leaf_function(uint64_t x, int64_t steps);
typedef uint64_t outer_function(uint64_t x, int64_t steps, leaf_function *inner);

static leaf_function *jit_leaf;

/* Between the two: no frame pointer, and rbp holds a number. */
FRAME uint64_t c_middle(uint64_t x, int64_t steps) {
  uint64_t a = target_step(x), b = target_step(a), c = target_step(b), d = target_step(c), e = target_step(d);
  uint64_t f = jit_leaf(e, steps);
  return a ^ (b + c) ^ (d + e) ^ f ^ x;
}

struct code {
  unsigned char *at;
  FILE *map;
};

static void emit(struct code *code, const char *name, const void *bytes, size_t size) {
  fprintf(code->map, "%lx %zx %s\n", (unsigned long)code->at, size, name);
  memcpy(code->at, bytes, size);
  code->at += (size + 15) & ~(size_t)15;
}

static outer_function *compile(void) {
  static const unsigned char leaf[] = {
      0x55,                                      // push %rbp
      0x48, 0x89, 0xe5,                          // mov %rsp,%rbp
      0x48, 0x89, 0xf8,                          // mov %rdi,%rax
      0x48, 0xb9, 0x2d, 0x7f, 0x95, 0x4c, 0x2d, 0xf4, 0x51, 0x58,  // movabs $6364136223846793005,%rcx
      0x48, 0x0f, 0xaf, 0xc1,                    // 1: imul %rcx,%rax
      0x48, 0xff, 0xc0,                          // inc %rax
      0x48, 0xff, 0xce,                          // dec %rsi
      0x75, 0xf4,                                // jne 1b
      0x5d,                                      // pop %rbp
      0xc3,                                      // ret
  };
  static const unsigned char outer[] = {
      0x55,              // push %rbp
      0x48, 0x89, 0xe5,  // mov %rsp,%rbp
      0xff, 0xd2,        // call *%rdx
      0x48, 0xff, 0xc0,  // inc %rax
      0x5d,              // pop %rbp
      0xc3,              // ret
  };
  char path[64];
  snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
  struct code code = {mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), fopen(path, "w")};
  if (code.at == MAP_FAILED || code.map == NULL) exit(1);
  unsigned char *start = code.at;
  jit_leaf = (leaf_function *)code.at;
  emit(&code, "jit_leaf", leaf, sizeof leaf);
  outer_function *jit_outer = (outer_function *)code.at;
  emit(&code, "jit_outer", outer, sizeof outer);
  fclose(code.map);
  if (mprotect(start, PAGE, PROT_READ | PROT_EXEC) != 0) exit(1);
  return jit_outer;
}

/* Much time in the loop, and then much in prologues and epilogues. */
FRAME static uint64_t round_trip(outer_function *jit_outer) {
  uint64_t x = jit_outer(1, LONG, c_middle);
  for (int i = 0; i < STORM; i++) x = jit_outer(x, SHORT, c_middle);
  return x;
}

FRAME static uint64_t run(outer_function *jit_outer, uint64_t expected) {
  uint64_t rounds = 0;
  char command[1];
  while (!target_over(command, sizeof command)) {
    target_verify(expected, round_trip(jit_outer));
    rounds++;
  }
  return rounds;
}

int main(void) {
  target_start();
  outer_function *jit_outer = compile();
  uint64_t expected = round_trip(jit_outer);
  target_ready();
  uint64_t rounds = run(jit_outer, expected);
  target_finish(expected, rounds);
  char path[64];
  snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
  unlink(path);
  return 0;
}
