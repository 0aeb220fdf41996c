#include <stdint.h>

uint64_t c_outer(uint64_t x);
uint64_t c_inner(uint64_t x);
