/* What every C and C++ target does alike: the ready line, the end of the work, commands, the checksum line.
 *
 * A target prints `ready <PID>` once its work runs, works until its standard input closes or SIGTERM comes, and
 * then prints `checksum <value> <iterations>`. The value is that of one round and must be the same in all. */
#pragma once

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A function that stays a frame of its own, under its own name. */
#define FRAME __attribute__((noipa))

/* One step of the arithmetic that burns time: each needs the result of the last, so nothing can skip it. */
static inline uint64_t target_step(uint64_t x) { return x * 6364136223846793005u + 1442695040888963407u; }

static volatile sig_atomic_t target_terminated;

static void target_on_sigterm(int signal) {
  (void)signal;
  target_terminated = 1;
}

static inline void target_start(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = target_on_sigterm;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, NULL);
}

static inline void target_ready(void) {
  printf("ready %d\n", (int)getpid());
  fflush(stdout);
}

/* Whether the work is over. Puts a line from standard input, if one has come, into `command` (else an empty
 * string). Costs one system call, so call it once a round. */
static inline bool target_over(char *command, size_t size) {
  struct pollfd in = {STDIN_FILENO, POLLIN, 0};
  if (size > 0) command[0] = '\0';
  if (target_terminated) return true;
  if (poll(&in, 1, 0) <= 0) return target_terminated;
  size_t length = 0;
  char byte;
  for (;;) {
    ssize_t got = read(STDIN_FILENO, &byte, 1);
    if (got <= 0) return true;
    if (byte == '\n') return false;
    if (length + 1 < size) {
      command[length++] = byte;
      command[length] = '\0';
    }
  }
}

/* Holds the value of the first round against that of a later one; a difference is the end. */
static inline void target_verify(uint64_t expected, uint64_t got) {
  if (expected == got) return;
  fprintf(stderr, "a round gave %016llx, the first gave %016llx\n", (unsigned long long)got,
          (unsigned long long)expected);
  _exit(1);
}

static inline void target_finish(uint64_t value, uint64_t iterations) {
  printf("checksum %016llx %llu\n", (unsigned long long)value, (unsigned long long)iterations);
  fflush(stdout);
}
