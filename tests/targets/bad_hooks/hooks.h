#ifndef HOOKS_H
#define HOOKS_H

#include "../common/traceback.h"

#include <stdint.h>

void *address_of_traceback(void);
void *address_of_context(void);
void *address_of_symbolizer(void);

/* How the traceback hook is to behave; see README.md. */
void behave(const char *how);

/* Calls goMiddle. */
uint64_t c_outer(uint64_t x);

/* Computes, holding the lock. */
uint64_t c_leaf(uint64_t x);

/* Forks a child that computes until end_child, which returns 0 if its results were right. */
int start_child(void);
int end_child(void);

#endif
