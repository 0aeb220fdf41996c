#include <stdint.h>

/* Go calls these. Each spends n steps in itself and in a leaf, and calls back into Go until the innermost. */
uint64_t c_outer(uint64_t x, int n);
uint64_t c_mid(uint64_t x, int n);
uint64_t c_inner(uint64_t x, int n);

/* Starts a thread that interrupts the others with SIGPROF, which the Go runtime handles, all the time. */
void c_storm(void);
