/* Walks with the unwinder of libgcc. */
#pragma once

#include <stdint.h>
#include <unwind.h>

struct libgcc_walk {
	uintptr_t *pcs;
	uintptr_t max, n;
	int skip;
};

static _Unwind_Reason_Code libgcc_visit(struct _Unwind_Context *context, void *data)
{
	struct libgcc_walk *walk = data;
	int before_instruction = 0;

	if (walk->skip > 0) {
		walk->skip--;
		return _URC_NO_REASON;
	}
	if (walk->n == walk->max)
		return _URC_END_OF_STACK;
	uintptr_t pc = _Unwind_GetIPInfo(context, &before_instruction);
	walk->pcs[walk->n++] = before_instruction ? pc : pc - 1;
	return _URC_NO_REASON;
}

/* The stack of the function that this is put into, innermost first, without its `skip` innermost frames. The addresses
 * are those of the calls. Returns how many there are, at most `max`. */
static inline __attribute__((always_inline)) uintptr_t libgcc_walk(uintptr_t *pcs, uintptr_t max, int skip)
{
	struct libgcc_walk walk = {pcs, max, 0, skip};
	_Unwind_Backtrace(libgcc_visit, &walk);
	return walk.n;
}
