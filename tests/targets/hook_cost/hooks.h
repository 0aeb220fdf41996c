#ifndef HOOKS_H
#define HOOKS_H

#include <stdint.h>

void *address_of_traceback(void);
void *address_of_context(void);
void *address_of_symbolizer(void);

/* From now on the traceback hook gives addresses that it has never given before, as many as there is room for. */
void make_addresses(void);

/* Takes so much memory. */
int grow(uint64_t mebibytes);

/* Three functions deep, works for n steps. */
uint64_t c_work(uint64_t x, uint64_t n);

/* Calls goWork with the same arguments. */
uint64_t c_up(uint64_t x, uint64_t n, int depth);

/* CPU time of the thread, in nanoseconds. */
uint64_t cpu_time(void);

#endif
