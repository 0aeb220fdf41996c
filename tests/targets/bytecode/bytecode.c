// An interpreter of bytecode that tells profilers what its stacks mean. See README.md.

#define _GNU_SOURCE
#include <pthread.h>
#include <ucontext.h>

#include "../../../profiler/include/traceback_hooks.h"
#include "../common/target.h"

enum op { STEPS, NATIVE, CALL, RETURN };

struct instruction {
  enum op op;
  int operand;
};

struct function {
  const char *name;
  struct instruction code[6];
};

enum { INNER, OUTER, MAIN };

static const struct function script[] = {
    [INNER] = {"script_inner", {{STEPS, 30000}, {NATIVE, 40000}, {RETURN, 0}}},
    [OUTER] = {"script_outer", {{CALL, INNER}, {STEPS, 20000}, {CALL, INNER}, {RETURN, 0}}},
    [MAIN] = {"script_main", {{STEPS, 20000}, {CALL, OUTER}, {CALL, OUTER}, {RETURN, 0}}},
};

// Where the hooks say that an instruction of a script is: in no mapping.
enum { SCRIPTS = 0x5c0000, PER_SCRIPT = 0x1000 };

// A running script function.
struct activation {
  struct activation *caller;
  int function;
  int instruction;
  // Of the C function that runs it.
  uintptr_t return_address;
};

// The innermost one of the thread, and where its outermost C function returns to.
static __thread struct activation *volatile innermost;
static __thread uintptr_t run_returns_to;

static uint64_t expected;
static volatile bool over;

// Functions that scripts call. They push nothing, so their caller is at the stack pointer.
__attribute__((section("natives"))) FRAME static uint64_t native_hash(uint64_t x, int n) {
  for (int i = 0; i < n; i++) x = target_step(x);
  return x;
}

extern const char __start_natives[], __stop_natives[];

FRAME static uint64_t interpret(int function, uint64_t x) {
  struct activation here = {innermost, function, 0, (uintptr_t)__builtin_return_address(0)};
  innermost = &here;
  for (const struct instruction *code = script[function].code;; code++) {
    *(volatile int *)&here.instruction = (int)(code - script[function].code);
    switch (code->op) {
      case STEPS:
        for (int i = 0; i < code->operand; i++) x = target_step(x);
        break;
      case NATIVE:
        x = native_hash(x, code->operand) + 1;
        break;
      case CALL:
        x = interpret(code->operand, x) + 1;
        break;
      case RETURN:
        innermost = here.caller;
        return x;
    }
  }
}

static void traceback(struct profiler_traceback *arg) {
  const ucontext_t *context = (const ucontext_t *)arg->sig_context;
  struct activation *activation = innermost;
  uintptr_t n = 0;
#define LIST(pc) \
  if (n < arg->max) arg->buf[n++] = (pc)
  if (arg->context == 0 && activation != NULL) {
    uintptr_t pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
    LIST(pc);
    if (pc - (uintptr_t)__start_natives < (uintptr_t)(__stop_natives - __start_natives))
      LIST(*(uintptr_t *)context->uc_mcontext.gregs[REG_RSP] - 1);
    for (; activation != NULL; activation = activation->caller) {
      LIST(SCRIPTS + (uintptr_t)activation->function * PER_SCRIPT + (uintptr_t)activation->instruction);
      LIST(activation->return_address - 1);
    }
    LIST(run_returns_to - 1);
  }
  if (n < arg->max) arg->buf[n] = 0;
}

static void symbolizer(struct profiler_symbolizer *arg) {
  uintptr_t script_pc = arg->pc - SCRIPTS;
  if (arg->pc < SCRIPTS || script_pc >= PER_SCRIPT * (sizeof script / sizeof script[0])) return;
  arg->func = script[script_pc / PER_SCRIPT].name;
  arg->file = "script.bc";
  arg->lineno = script_pc % PER_SCRIPT + 1;
  arg->entry = arg->pc - script_pc % PER_SCRIPT;
}

PROFILER_TRACEBACK_HOOKS(traceback, symbolizer);

// The handler that asks runs on the alternate stack.
static void give_stack(char *stack, size_t size) {
  stack_t alternate = {.ss_sp = stack, .ss_size = size};
  if (sigaltstack(&alternate, NULL) != 0) exit(1);
}

FRAME static uint64_t run(bool reads) {
  uint64_t rounds = 0;
  char command[1];
  run_returns_to = (uintptr_t)__builtin_return_address(0);
  while (!over) {
    target_verify(expected, interpret(MAIN, 1));
    rounds++;
    if (reads && target_over(command, sizeof command)) over = true;
  }
  return rounds;
}

FRAME static void *run_thread(void *rounds) {
  static char stack[64 << 10];
  give_stack(stack, sizeof stack);
  *(uint64_t *)rounds = run(false);
  return NULL;
}

int main(void) {
  static char stack[64 << 10];
  target_start();
  give_stack(stack, sizeof stack);
  expected = interpret(MAIN, 1);
  uint64_t others = 0;
  pthread_t thread;
  if (pthread_create(&thread, NULL, run_thread, &others) != 0) return 1;
  target_ready();
  uint64_t own = run(true);
  pthread_join(thread, NULL);
  target_finish(expected, own + others);
  return 0;
}
