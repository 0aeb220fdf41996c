#ifndef HARM_H
#define HARM_H

#include <stdint.h>

/* Works, calls goUp with the same depth, and works on its result. */
uint64_t c_down(uint64_t x, int depth);
/* Calls goTick n times. */
uint64_t c_storm(uint64_t n);

/* Starts a thread that Go does not know. It calls goUp this deep (-1: never), and sleeps so long between two rounds. */
void c_start_thread(int depth, int sleep_us);

/* Calls the kernel in all ways that a signal could end early, for ever. */
void c_wait_for_ever(void);
/* The same, on a thread that Go does not know. */
void c_start_waiting_thread(void);
/* How often somebody has gone through all of them. */
unsigned long c_rounds_of_waits(void);
/* How often a call was ended early, one `name=count` for each, and all calls. */
const char *c_interrupted(void);

/* Children that work and exit, and one that executes another program; all return what went wrong, 0 if nothing. */
int c_fork(void);
int c_spawn(void);
/* Calls goSpawn, which executes one from a callback. */
int c_call_spawn(void);

/* The hooks. */
void *address_of_traceback(void);
void *address_of_context(void);
/* How often the traceback hook was called. */
uint64_t hook_calls(void);

#endif
