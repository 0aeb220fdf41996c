/*
 * Traceback hooks: how a program tells a profiler what its stacks mean.
 *
 * A program that runs code of its own making (an interpreter, a JIT compiler, coroutines) has stacks that nobody can
 * read from outside. It can publish two functions that read them: `traceback` lists the addresses of a stack,
 * `symbolizer` gives an address its name. The profiler calls them; the program does not link with the profiler, does
 * not start it, and pays nothing while it is not being profiled.
 *
 *     static void traceback(struct profiler_traceback *arg) { ... }
 *     static void symbolizer(struct profiler_symbolizer *arg) { ... }
 *     PROFILER_TRACEBACK_HOOKS(traceback, symbolizer);
 *
 * That defines a variable named profiler_traceback_hooks, which the profiler finds by its symbol. A library exports it.
 * An executable has it in its symbol table; if that is going to be stripped, link it with
 * -Wl,--export-dynamic-symbol=profiler_traceback_hooks. If several objects in a process have one, the first of
 * them that was loaded counts.
 *
 * The argument blocks and the rules are those of version 0 of Go's runtime.SetCgoTraceback, so functions written for
 * that fit. Go programs use SetCgoTraceback itself and need no table. From Rust, define a static with the layout of
 * struct profiler_traceback_hooks and `#[unsafe(no_mangle)]`; a null pointer is an Option that is None.
 *
 * Linux on x86-64. C99, or C++98 and later. This file may be copied into the program that includes it.
 */

#ifndef PROFILER_TRACEBACK_HOOKS_H
#define PROFILER_TRACEBACK_HOOKS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What `traceback` is called with.
 *
 * It is called in a signal handler, on the thread that was interrupted: at any instruction, on several threads at once,
 * on the thread's alternate signal stack (sigaltstack). A thread that has none is not asked, since nobody knows what room
 * there is on its own. Therefore it
 *
 *   - calls async-signal-safe functions only, takes no lock, allocates nothing, and does not throw or longjmp;
 *   - reads no memory that may be gone: a half-built frame is as likely as any other;
 *   - is quick. One that runs for milliseconds is given up, and not called again for this process;
 *   - may store addresses of its own making, which only `symbolizer` understands, between those of machine code: that is how
 *     the functions of a script stand where they ran.
 *
 * It is called from another function than the one that was interrupted: begin with the registers in sig_context,
 * and not by counting frames.
 */
struct profiler_traceback {
    /* 0: the stack to list is that of the interrupted code. Other values are for Go programs; if it is not 0, store
     * nothing but a 0. */
    uintptr_t context;
    /* The third argument of the signal handler, a ucontext_t *. */
    uintptr_t sig_context;
    /* Where to store the addresses, innermost first. Store a 0 after the last one, unless there are `max` of them.
     * Storing a 0 only says: no stack of mine, read it as usual.
     *
     * The first address is the interrupted instruction. Each of the others is one *in* the call instruction, not the
     * one after it to which the call returns: take one from a return address. */
    uintptr_t *buf;
    /* How many there is room for; at least 1. */
    uintptr_t max;
};

/*
 * What `symbolizer` is called with.
 *
 * For each address there is a new block, in which everything but pc is 0. As long as the function sets `more`, it is
 * called again with the same block as it left it. Then it is called once with pc = 0, whatever it said before, to free
 * what it keeps in `data`. Strings are copied before that call; they may be overwritten afterwards, and not before.
 *
 * It is never called in a signal handler. It is called in a copy of the process, made when the profile is finished, in
 * which there is no other thread: it may allocate memory and change what it likes, as nothing of it comes back
 * to the process, but a lock that another thread holds will never be released.
 */
struct profiler_symbolizer {
    /* An address that `traceback` gave; 0 in the last call. */
    uintptr_t pc;
    /* Source file, ends with a zero byte, UTF-8, at most 4095 bytes. Null if unknown. */
    const char *file;
    /* Line in it; 0 if unknown. */
    uintptr_t lineno;
    /* Name of the function, like `file`. */
    const char *func;
    /* First address of the function; 0 if unknown. */
    uintptr_t entry;
    /* Not 0 if the next call should be for the same address: the function that was just named is inlined in another.
     * At most 64 calls are made for one address. */
    uintptr_t more;
    /* The function's own. */
    uintptr_t data;
};

/*
 * The table. A pointer may be null, and may be set while the program runs; set `traceback` last, and change
 * neither once it is set. While `traceback` is null nothing is called. Without `symbolizer`, addresses are named by the
 * object files that they are in, if they are in any.
 */
struct profiler_traceback_hooks {
    /* PROFILER_TRACEBACK_HOOKS_MAGIC */
    uint64_t magic;
    /* PROFILER_TRACEBACK_HOOKS_VERSION */
    uint64_t version;
    void (*traceback)(struct profiler_traceback *arg);
    void (*symbolizer)(struct profiler_symbolizer *arg);
};

/* In memory, the characters PROFHOOK. */
#define PROFILER_TRACEBACK_HOOKS_MAGIC UINT64_C(0x4b4f4f48464f5250)
#define PROFILER_TRACEBACK_HOOKS_VERSION 0

/* Keeps the table, which nothing refers to, from a linker that removes unused sections. */
#if defined(__has_attribute)
#if __has_attribute(retain)
#define PROFILER_RETAIN __attribute__((used, retain))
#endif
#endif
#ifndef PROFILER_RETAIN
#define PROFILER_RETAIN __attribute__((used))
#endif

extern struct profiler_traceback_hooks profiler_traceback_hooks __attribute__((visibility("default")));

/* Defines the table; once, at file scope of one source file. */
#define PROFILER_TRACEBACK_HOOKS(traceback, symbolizer)                                                      \
    PROFILER_RETAIN struct profiler_traceback_hooks profiler_traceback_hooks = {                             \
        PROFILER_TRACEBACK_HOOKS_MAGIC, PROFILER_TRACEBACK_HOOKS_VERSION, traceback, symbolizer              \
    }

#ifdef __cplusplus
}
#endif

#endif
