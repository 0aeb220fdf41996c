/* What the programs around the libraries do alike: rounds on the main thread and on a pthread. */
#pragma once

#include <pthread.h>

#include "../../common/target.h"
#include "../library.h"

enum { DEPTH = 3 };

static uint64_t expected;
static volatile bool over;

/* One round through the libraries; each program has its own. */
uint64_t round_trip(uint64_t x);

FRAME static void *run_thread(void *rounds) {
  uint64_t n = 0;
  while (!over) {
    target_verify(expected, round_trip(1));
    n++;
  }
  *(uint64_t *)rounds = n;
  return NULL;
}

FRAME static uint64_t run(void) {
  uint64_t rounds = 0;
  char command[1];
  while (!over) {
    target_verify(expected, round_trip(1));
    rounds++;
    if (target_over(command, sizeof command)) over = true;
  }
  return rounds;
}

static inline int work(void) {
  target_start();
  expected = round_trip(1);
  uint64_t others = 0;
  pthread_t thread;
  if (pthread_create(&thread, NULL, run_thread, &others) != 0) return 1;
  target_ready();
  uint64_t own = run();
  pthread_join(thread, NULL);
  target_finish(expected, own + others);
  return 0;
}
