/* Unwinds by the .eh_frame_hdr of the objects that were loaded when the program started. Safe in signal handlers: memory
 * of the objects and of the stack is read, nothing else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct cursor {
	uintptr_t pc, sp, fp;
};

/* The start of the function (or of the part of one) that has rules for this address; 0: there is none. */
uintptr_t tables_function(uintptr_t pc);

/* Goes to the caller. `is_call`: pc is the address after a call. The stack ends at `stack_end`. False: there are no rules
 * that are understood here. */
bool tables_step(struct cursor *cursor, bool is_call, uintptr_t stack_end);
