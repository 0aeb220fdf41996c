/* A program with hooks, in C99 and in C++98. */
#include "traceback_hooks.h"

void my_traceback(struct profiler_traceback *arg);
void my_symbolizer(struct profiler_symbolizer *arg);

void my_traceback(struct profiler_traceback *arg)
{
    if (arg->context == 0 && arg->max > 1) {
        arg->buf[0] = arg->sig_context;
        arg->buf[1] = 0;
    }
}

void my_symbolizer(struct profiler_symbolizer *arg)
{
    arg->func = "named";
    arg->lineno = arg->pc;
}

PROFILER_TRACEBACK_HOOKS(my_traceback, my_symbolizer);

int main(void)
{
    return 0;
}
