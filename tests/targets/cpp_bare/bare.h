/* What has no unwind tables, and what it calls. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

uint64_t framed_outer(uint64_t x);
uint64_t bare_outer(uint64_t x);
uint64_t with_tables(uint64_t x);

#ifdef __cplusplus
}
#endif
