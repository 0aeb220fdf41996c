// Three layers of C, compiled without frame pointers. Every function is a frame of its own, and none ends in a
// tail call: each works on the result of its callee.

#define _GNU_SOURCE
#include "nested.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>

#include "_cgo_export.h"

#define FRAME __attribute__((noipa))

static inline uint64_t burn(uint64_t x, int n) {
  for (int i = 0; i < n; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

/* A thread that works here. */
static volatile pthread_t worker;
static volatile int is_storming;

FRAME uint64_t c_leaf1(uint64_t x, int n) { return burn(x, n); }
FRAME uint64_t c_leaf2(uint64_t x, int n) { return burn(x ^ 2, n); }
FRAME uint64_t c_leaf3(uint64_t x, int n) { return burn(x ^ 3, n); }

// The compiler keeps values across the call in rbx, rbp and r12: a walk that takes rbp for a frame pointer fails.
FRAME uint64_t c_outer_step(uint64_t x, int n) {
  uint64_t before = burn(x, n / 4);
  uint64_t inner = goMid(before, n);
  return burn(inner ^ before ^ x, 3);
}

FRAME uint64_t c_outer(uint64_t x, int n) {
  volatile uint64_t pad[9];
  pad[x & 7] = x;
  if (is_storming) worker = pthread_self();
  uint64_t leaf = c_leaf1(burn(x, n / 4), n);
  uint64_t step = c_outer_step(leaf, n);
  return step + leaf + pad[x & 7];
}

FRAME uint64_t c_mid_step(uint64_t x, int n) {
  uint64_t before = burn(x, n / 4);
  uint64_t inner = goInner(before, n);
  return burn(inner ^ before ^ x, 5);
}

FRAME uint64_t c_mid(uint64_t x, int n) {
  uint64_t leaf = c_leaf2(burn(x, n / 4), n);
  uint64_t step = c_mid_step(leaf, n);
  return step + leaf;
}

FRAME uint64_t c_inner_step(uint64_t x, int n) {
  uint64_t leaf = c_leaf3(burn(x, n / 4), n);
  return burn(leaf ^ x, 7);
}

FRAME uint64_t c_inner(uint64_t x, int n) {
  uint64_t step = c_inner_step(burn(x, n / 4), n);
  return step * 3 + x;
}

FRAME static void *storm(void *unused) {
  sigset_t own;
  sigemptyset(&own);
  sigaddset(&own, SIGPROF);
  pthread_sigmask(SIG_BLOCK, &own, NULL);
  volatile uint64_t x = 1;
  for (;;) {
    pthread_kill(worker, SIGPROF);
    x = burn(x, 5000);
  }
  return unused;
}

void c_storm(void) {
  pthread_t thread;
  worker = pthread_self();
  is_storming = 1;
  pthread_create(&thread, NULL, storm, NULL);
}
