#include <stdint.h>

/* Calls itself n times and works. */
uint64_t c_bottom(uint64_t x, int n);
