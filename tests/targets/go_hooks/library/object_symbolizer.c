/* A symbolizer that knows which file the code is in, and nothing else, as one of dladdr alone does for what no file exports. */
#define _GNU_SOURCE
#include "../hooks.h"

#include <dlfcn.h>

void hook_symbolizer(struct symbolizer_arg *arg) {
	Dl_info info;
	if (arg->pc != 0 && dladdr((void *)arg->pc, &info) != 0)
		arg->file = info.dli_fname;
	arg->more = 0;
}
