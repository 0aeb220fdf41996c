#include <stdint.h>

// How much each part works, in percent of what it needs. The build tags of main.go change it.
#ifndef C_PERCENT
#define C_PERCENT 100
#endif
#ifndef GO_PERCENT
#define GO_PERCENT 100
#endif
#ifndef ALL_PERCENT
#define ALL_PERCENT 100
#endif

uint64_t c_hash(uint64_t x, int n);
uint64_t c_pack(uint64_t x, int n);
uint64_t c_filter(uint64_t x, int n);
