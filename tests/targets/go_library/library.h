/* What the libraries and the programs around them know of each other. */
#ifndef LIBRARY_H
#define LIBRARY_H

#include <stdint.h>

/* Works, and calls the peers in turn until depth is 0. They are an address of a `struct peers`: for Go a number, since it
 * would look at pointers. */
typedef uint64_t go_function(uint64_t x, int depth, uintptr_t peers);

/* Who is called at an odd depth, and who at an even one. */
struct peers {
	go_function *at[2];
};

uint64_t c_down(uint64_t x, int depth, uintptr_t peers);

#endif
