// Waits, a known number of times, in functions that are known. See README.md for the true chains.

#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

#include "../common/target.h"

enum { TIMES = 25, WAIT_MS = 20 };

static const struct timespec wait_time = {0, WAIT_MS * 1000000};
static int word_of_futex;
static int ends[2];

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

FRAME static int in_sleep(void) { return nanosleep(&wait_time, NULL); }

FRAME static long in_futex(void) {
  return syscall(SYS_futex, &word_of_futex, FUTEX_WAIT_PRIVATE, 0, &wait_time, NULL, 0);
}

FRAME static ssize_t in_read(void) {
  char byte;
  return read(ends[0], &byte, 1);
}

static void *write_late(void *unused) {
  for (int i = 0; i < TIMES; i++) {
    nanosleep(&wait_time, NULL);
    if (write(ends[1], "x", 1) != 1) _exit(1);
  }
  return unused;
}

// How long it takes in all to do that so many times, by the clock.
#define MEASURE(wait) \
  ({ \
    uint64_t all = 0; \
    for (int i = 0; i < TIMES; i++) { \
      uint64_t begun = now(); \
      wait; \
      all += now() - begun; \
    } \
    (unsigned long long)all; \
  })

FRAME static void round_of_waits(void) {
  unsigned long long sleep = MEASURE(in_sleep());
  unsigned long long futex = MEASURE(in_futex());
  pthread_t writer;
  if (pthread_create(&writer, NULL, write_late, NULL) != 0) _exit(1);
  unsigned long long reading = MEASURE(in_read());
  pthread_join(writer, NULL);
  printf("waited %llu %llu %llu\n", sleep, futex, reading);
  fflush(stdout);
}

int main(void) {
  target_start();
  if (pipe(ends) != 0) return 1;
  target_ready();
  uint64_t rounds = 0;
  char command[8] = "";
  // Waits for the next line in ppoll, which is none of the functions that are measured.
  struct pollfd in = {STDIN_FILENO, POLLIN, 0};
  while (ppoll(&in, 1, NULL, NULL) > 0 && !target_over(command, sizeof command)) {
    if (strcmp(command, "wait") != 0) continue;
    round_of_waits();
    rounds++;
  }
  target_finish(TIMES, rounds);
  return 0;
}
