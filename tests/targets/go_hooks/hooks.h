#ifndef HOOKS_H
#define HOOKS_H

#include "../common/traceback.h"

#include <stdint.h>

void *address_of_traceback(void);
void *address_of_context(void);
void *address_of_symbolizer(const char *library);

/* Calls goUp with the same depth. */
uint64_t c_down(uint64_t x, int depth);

#endif
