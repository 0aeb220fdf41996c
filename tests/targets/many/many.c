// More of something than programs usually have. See README.md.

#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include "../common/target.h"

enum { PAGE = 4096, MAX_THREADS = 10000, STACK = 64 << 10 };

/* Counts down from the 32 bits at byte 1 and returns its argument plus the 8 bits at byte 12:
 * mov $N, %ecx; 1: dec %ecx; jnz 1b; lea D(%rdi), %rax; ret */
static const unsigned char LOOP[] = {0xb9, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0x48, 0x8d, 0x47, 0, 0xc3};

typedef uint64_t piece(uint64_t);

static void *no_memory(const char *what) {
  perror(what);
  exit(1);
}

/* Puts a piece of code that adds `plus` into one page at `place`, or anywhere. */
static piece *map_code(void *place, uint32_t steps, unsigned char plus) {
  unsigned char *page = mmap(place, PAGE, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | (place ? MAP_FIXED : 0), -1, 0);
  if (page == MAP_FAILED) no_memory("mmap");
  memcpy(page, LOOP, sizeof LOOP);
  memcpy(page + 1, &steps, sizeof steps);
  page[12] = plus;
  if (mprotect(page, PAGE, PROT_READ | PROT_EXEC) != 0) no_memory("mprotect");
  return (piece *)(uintptr_t)page;
}

FRAME static uint64_t call(piece *code, uint64_t x) { return code(x) + 1; }

/* Every other page of a large area can be executed, so that none becomes one with its neighbour. */
static uint64_t mappings(unsigned n) {
  unsigned char *area =
      mmap(NULL, (size_t)n * 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) no_memory("mmap");
  for (unsigned i = 0; i < n / 2; i++)
    if (mprotect(area + (size_t)i * 2 * PAGE, PAGE, PROT_READ | PROT_EXEC) != 0) no_memory("mprotect");
  piece *code = map_code(area + (size_t)n / 2 * 2 * PAGE, 100000, 1);
  target_ready();
  uint64_t rounds = 0;
  for (; !target_over(NULL, 0); rounds++) target_verify(9, call(code, 7));
  return rounds;
}

static piece *shared;
static volatile bool over;

FRAME static void *work(void *rounds) {
  struct timespec pause = {1, 0};
  uint64_t n = 0;
  for (; !over; n++) {
    target_verify(9, call(shared, 7));
    nanosleep(&pause, NULL);
  }
  *(uint64_t *)rounds = n;
  return NULL;
}

static uint64_t threads(unsigned n) {
  static pthread_t thread[MAX_THREADS];
  static uint64_t rounds[MAX_THREADS];
  if (n > MAX_THREADS) n = MAX_THREADS;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK);
  shared = map_code(NULL, 30000, 1);
  for (unsigned i = 0; i < n; i++)
    if (pthread_create(&thread[i], &attributes, work, &rounds[i]) != 0) no_memory("pthread_create");
  target_ready();
  while (!target_over(NULL, 0)) target_verify(9, call(shared, 7));
  over = true;
  uint64_t all = 0;
  for (unsigned i = 0; i < n; i++) {
    pthread_join(thread[i], NULL);
    all += rounds[i];
  }
  return all;
}

static uint64_t remap(unsigned n) {
  piece *code = map_code(NULL, 1000, 1);
  target_ready();
  uint64_t rounds = 0;
  for (; !target_over(NULL, 0); rounds++)
    for (unsigned i = 0; i < n; i++) {
      unsigned char plus = (unsigned char)(i & 7);
      map_code((void *)(uintptr_t)code, 1000, plus);
      target_verify(8 + plus, call(code, 7));
    }
  return rounds;
}

int main(int argc, char **argv) {
  unsigned n = argc == 3 ? (unsigned)atoi(argv[2]) : 0;
  uint64_t rounds;
  target_start();
  if (n > 0 && strcmp(argv[1], "mappings") == 0)
    rounds = mappings(n);
  else if (n > 0 && strcmp(argv[1], "threads") == 0)
    rounds = threads(n);
  else if (n > 0 && strcmp(argv[1], "remap") == 0)
    rounds = remap(n);
  else {
    fprintf(stderr, "usage: %s mappings|threads|remap N\n", argv[0]);
    return 1;
  }
  target_finish(9, rounds);
  return 0;
}
