use super::{Condition, Facts, Outcome, Requirement, Runtime, SIGNALS, State, Verdict, verdict};
use crate::addr::Avma;
use crate::target::calls::SystemCalls;
use crate::target::go::Source;
use crate::target::go::hooks::Hooks;
use crate::target::go::threads::{Goroutine, Thread};
use crate::target::process::{Process, Task};
use crate::target::status::{Status, Syscall};

const FUTEX_CODE: std::ops::Range<Avma> = Avma(0x460520)..Avma(0x460560);
/// Signals from 35 on.
const REAL_TIME: u64 = u64::MAX << 34;
/// Go's own handler is for all of them.
const WITH_GO: bool = true;

/// An M with nothing to do.
fn idle_m(tid: u64) -> Thread {
    Thread {
        m: Avma(0xc000_0000),
        tid,
        goroutine: None,
        c_calls: 0,
    }
}

/// A thread that waits in the futex system call at `pc`.
fn waiting(tid: u32, operation: u64, pc: u64) -> Task {
    Task {
        tid,
        status: Status {
            id_inside: tid,
            caught: REAL_TIME,
            ..Status::default()
        },
        syscall: Some(Syscall {
            number: 202,
            arguments: [0xc000_0148, operation, 0, 0, 0, 0],
            sp: 0x7fff_0000,
            pc,
        }),
    }
}

/// Everything is as it has to be.
fn good() -> Facts {
    Facts {
        runtime: Runtime::Understood {
            cgo: true,
            layout: Source::Dwarf,
            hooks: Some(Hooks {
                traceback: Some(Avma(0x4a0b10)),
                callers: Some(Avma(0x4a0ad0)),
                ..Hooks::default()
            }),
            threads: Some(vec![idle_m(12)]),
        },
        code: vec![Avma(0x401000)..Avma(0x4b0000)],
        futex: Some(FUTEX_CODE),
        spare: Vec::new(),
        state: State {
            is_x86_64: Some(true),
            tasks: vec![waiting(12, 0x80, 0x460541)],
            ptrace_scope: Some(1),
            ours: Status {
                capabilities: 1 << 19 | 1 << 21,
                ..Status::default()
            },
            shows_filters: true,
        },
    }
}

fn of(facts: &Facts, requirement: Requirement) -> Condition {
    let conditions = facts.conditions();
    let mut found = conditions.into_iter().filter(|c| c.requirement == requirement);
    let condition = found.next().expect("there is such a condition");
    assert_eq!(found.next(), None);
    condition
}

/// The outcome of `requirement` after `change`, which alters the outcome of no condition but `also`.
fn after(requirement: Requirement, also: &[Requirement], change: impl FnOnce(&mut Facts)) -> Condition {
    let mut facts = good();
    change(&mut facts);
    for (before, after) in good().conditions().iter().zip(facts.conditions()) {
        if before.requirement != requirement && !also.contains(&before.requirement) {
            assert_eq!(before.outcome, after.outcome, "{:?}", before.requirement);
        }
    }
    of(&facts, requirement)
}

#[test]
fn a_program_that_meets_all_conditions_can_be_asked() {
    let conditions = good().conditions();
    for condition in &conditions {
        assert_eq!(condition.outcome, Outcome::Holds, "{condition:?}");
        assert_eq!(condition.remedy, None, "{condition:?}");
    }
    assert_eq!(verdict(&conditions), Verdict::Yes);
}

#[test]
fn a_verdict_names_what_fails_and_forgives_what_is_unknown() {
    let mut facts = good();
    facts.state.is_x86_64 = Some(false);
    facts.state.tasks[0].syscall = None;
    let conditions = facts.conditions();
    let Verdict::No(failing) = verdict(&conditions) else {
        panic!("{conditions:?}");
    };
    let failing: Vec<_> = failing.iter().map(|c| c.requirement.name()).collect();
    assert_eq!(failing, ["64-bit"]);
}

#[test]
fn a_process_without_a_go_runtime_is_refused_once() {
    let also = [
        Requirement::TracebackHook,
        Requirement::Layout,
        Requirement::FreeSignal,
    ];
    let condition = after(Requirement::Cgo, &also, |facts| facts.runtime = Runtime::Absent);
    assert_eq!(condition.outcome, Outcome::Fails);
    let mut facts = good();
    facts.runtime = Runtime::Absent;
    facts.state.tasks[0].status.caught = 0;
    assert!(matches!(verdict(&facts.conditions()), Verdict::No(failing) if failing.len() == 1));
}

/// A program without Go that publishes hooks.
fn with_table() -> Facts {
    let mut facts = good();
    facts.runtime = Runtime::Table {
        traceback: Some(Avma(0x4a0b10)),
        calls: Some(SystemCalls {
            call: Avma(0x40_1000),
            sigreturn: Avma(0x40_2000),
        }),
    };
    facts.state.tasks[0].status.caught = 0;
    facts.spare = vec![12];
    facts
}

#[test]
fn a_program_with_a_table_needs_no_go() {
    let conditions = with_table().conditions();
    assert!(
        conditions
            .iter()
            .all(|condition| condition.outcome == Outcome::Holds)
    );
    let names: Vec<_> = conditions.iter().map(|c| c.requirement.name()).collect();
    assert_eq!(names[..2], ["traceback-hook", "system-calls"]);
    assert!(!names.contains(&"cgo") && !names.contains(&"layout"));
}

#[test]
fn a_table_without_a_hook_or_with_one_elsewhere_is_refused() {
    for hook in [None, Some(Avma(0x4b0000))] {
        let mut facts = with_table();
        if let Runtime::Table { traceback, .. } = &mut facts.runtime {
            *traceback = hook;
        }
        assert_eq!(of(&facts, Requirement::TracebackHook).outcome, Outcome::Fails);
    }
}

#[test]
fn without_go_the_handlers_for_real_time_signals_are_the_program_s_own() {
    let mut facts = with_table();
    facts.state.tasks[0].status.caught = REAL_TIME;
    assert_eq!(of(&facts, Requirement::FreeSignal).outcome, Outcome::Fails);
    facts.spare.clear();
    assert_eq!(of(&facts, Requirement::IdleThread).outcome, Outcome::Unknown);
}

#[test]
fn a_program_without_cgo_is_refused() {
    let condition = after(Requirement::Cgo, &[], |facts| {
        if let Runtime::Understood { cgo, .. } = &mut facts.runtime {
            *cgo = false;
        }
    });
    assert_eq!(condition.outcome, Outcome::Fails);
    let condition = after(Requirement::Cgo, &[], |facts| {
        if let Runtime::Understood {
            hooks: Some(hooks), ..
        } = &mut facts.runtime
        {
            hooks.callers = None;
        }
    });
    assert_eq!(condition.outcome, Outcome::Fails);
}

#[test]
fn without_a_traceback_function_there_is_nothing_to_ask() {
    let condition = after(Requirement::TracebackHook, &[], |facts| {
        if let Runtime::Understood {
            hooks: Some(hooks), ..
        } = &mut facts.runtime
        {
            hooks.traceback = None;
        }
    });
    assert_eq!(condition.outcome, Outcome::Fails);
    assert!(condition.fact.contains("nil"), "{condition:?}");
    let condition = after(Requirement::TracebackHook, &[], |facts| {
        if let Runtime::Understood { hooks, .. } = &mut facts.runtime {
            *hooks = None;
        }
    });
    assert_eq!(condition.outcome, Outcome::Fails);
    assert!(condition.fact.contains("SetCgoTraceback"), "{condition:?}");
}

#[test]
fn what_leads_to_no_code_is_never_called() {
    let change = |facts: &mut Facts, change: fn(&mut Hooks)| {
        if let Runtime::Understood {
            hooks: Some(hooks), ..
        } = &mut facts.runtime
        {
            change(hooks);
        }
    };
    let condition = after(Requirement::TracebackHook, &[], |facts| {
        change(facts, |hooks| hooks.traceback = Some(Avma(0x4b0000)));
    });
    assert_eq!(condition.outcome, Outcome::Fails);
    let condition = after(Requirement::Cgo, &[], |facts| {
        change(facts, |hooks| hooks.callers = Some(Avma(0x400fff)));
    });
    assert_eq!(condition.outcome, Outcome::Fails);
}

#[test]
fn a_runtime_that_is_not_understood_is_refused_once() {
    let also = [Requirement::Cgo, Requirement::TracebackHook];
    let condition = after(Requirement::Layout, &also, |facts| {
        facts.runtime = Runtime::NotUnderstood("m.curg is elsewhere".into());
    });
    assert_eq!(condition.outcome, Outcome::Fails);
    assert_eq!(condition.fact, "m.curg is elsewhere");
    let mut facts = good();
    facts.runtime = Runtime::NotUnderstood("m.curg is elsewhere".into());
    assert!(matches!(verdict(&facts.conditions()), Verdict::No(failing) if failing.len() == 1));
}

#[test]
fn a_32_bit_program_is_refused() {
    let condition = after(Requirement::Bits64, &[], |facts| {
        facts.state.is_x86_64 = Some(false)
    });
    assert_eq!(condition.outcome, Outcome::Fails);
    let condition = after(Requirement::Bits64, &[], |facts| facts.state.is_x86_64 = None);
    assert_eq!(condition.outcome, Outcome::Unknown);
}

/// Another thread, like the first, with `change`.
fn another(facts: &mut Facts, change: impl FnOnce(&mut Status)) {
    let mut task = facts.state.tasks[0].clone();
    task.tid += 1;
    change(&mut task.status);
    facts.state.tasks.push(task);
}

#[test]
fn a_filter_of_system_calls_on_any_thread_is_looked_at_later_if_we_may() {
    let with = |mode, change: fn(&mut Facts)| {
        after(Requirement::Seccomp, &[], |facts| {
            another(facts, |status| status.seccomp = mode);
            change(facts);
        })
    };
    assert_eq!(with(2, |_| ()).outcome, Outcome::Unknown);
    let refused = [
        with(1, |_| ()),
        with(2, |facts| facts.state.ours.capabilities = !(1 << 21)),
        with(2, |facts| facts.state.ours.seccomp = 2),
        with(2, |facts| facts.state.shows_filters = false),
    ];
    for condition in &refused {
        assert_eq!(condition.outcome, Outcome::Fails);
        assert!(condition.remedy.is_some());
    }
    let facts = refused.map(|condition| condition.fact);
    assert!(facts.is_sorted_by(|a, b| a != b), "{facts:?}");
    assert!(facts[0].contains("thread 13"), "{facts:?}");
}

#[test]
fn a_process_that_somebody_stopped_is_refused_with_the_way_out() {
    for state in [b'T', b't'] {
        let condition = after(Requirement::NotStopped, &[], |facts| {
            another(facts, |status| status.state = state);
        });
        assert_eq!(condition.outcome, Outcome::Fails);
        assert_eq!(
            condition.to_string(),
            "thread 13 has been stopped (remedy: let it go on with kill -CONT)"
        );
    }
}

#[test]
fn a_shadow_stack_on_any_thread_is_refused() {
    let condition = after(Requirement::NoShadowStack, &[], |facts| {
        another(facts, |status| status.shadow_stack = true);
    });
    assert_eq!(condition.outcome, Outcome::Fails);
    assert!(condition.fact.contains("13"), "{condition:?}");
}

#[test]
fn a_debugger_on_any_thread_is_refused_and_named_whatever_it_does() {
    for state in [b'S', b't'] {
        let condition = after(Requirement::NoTracer, &[], |facts| {
            another(facts, |status| {
                status.tracer = 4711;
                status.state = state;
            });
        });
        assert_eq!(condition.outcome, Outcome::Fails);
        assert!(condition.fact.contains("4711"), "{condition:?}");
    }
}

#[test]
fn yama_forbids_only_at_its_last_level() {
    for (scope, expected) in [
        (None, Outcome::Holds),
        (Some(0), Outcome::Holds),
        (Some(2), Outcome::Holds),
        (Some(3), Outcome::Fails),
    ] {
        let condition = after(Requirement::PtraceAllowed, &[], |facts| {
            facts.state.ptrace_scope = scope
        });
        assert_eq!(condition.outcome, expected, "{scope:?}");
    }
}

#[test]
fn without_the_capability_nothing_goes() {
    let condition = after(Requirement::Capability, &[], |facts| {
        facts.state.ours.capabilities = !(1 << 19)
    });
    assert_eq!(condition.outcome, Outcome::Fails);
}

#[test]
fn a_thread_is_idle_if_it_waits_in_the_runtime_and_the_runtime_agrees() {
    let idle = |change: &dyn Fn(&mut Facts)| {
        let mut facts = good();
        change(&mut facts);
        facts.idle_threads()
    };
    assert_eq!(idle(&|_| {}), [12]);
    // In another function: libc's.
    assert!(idle(&|facts| facts.state.tasks = vec![waiting(12, 0x80, 0x7f00_0000)]).is_empty());
    // FUTEX_WAKE.
    assert!(idle(&|facts| facts.state.tasks = vec![waiting(12, 0x81, 0x460541)]).is_empty());
    // Not in a system call.
    assert!(idle(&|facts| facts.state.tasks[0].syscall = None).is_empty());
    // The code is not known.
    assert!(idle(&|facts| facts.futex = None).is_empty());
    let with_thread = |thread: Thread| {
        idle(&|facts| {
            if let Runtime::Understood { threads, .. } = &mut facts.runtime {
                *threads = Some(vec![thread]);
            }
        })
    };
    assert!(with_thread(idle_m(13)).is_empty(), "another thread is idle");
    let goroutine = Some(Goroutine { id: 1, contexts: 0 });
    assert!(
        with_thread(Thread {
            goroutine,
            ..idle_m(12)
        })
        .is_empty()
    );
    assert!(
        with_thread(Thread {
            c_calls: 1,
            ..idle_m(12)
        })
        .is_empty(),
        "C waits beneath"
    );
    // A runtime that cannot be asked does not contradict.
    let unasked = idle(&|facts| {
        if let Runtime::Understood { threads, .. } = &mut facts.runtime {
            *threads = None;
        }
    });
    assert_eq!(unasked, [12]);
}

#[test]
fn no_idle_thread_is_not_a_refusal() {
    let condition = after(Requirement::IdleThread, &[], |facts| {
        facts.state.tasks[0].syscall = None
    });
    assert_eq!(condition.outcome, Outcome::Unknown);
}

#[test]
fn a_free_signal_has_no_handler_or_that_of_the_runtime() {
    let free = |change: &dyn Fn(&mut Status)| {
        let mut facts = good();
        change(&mut facts.state.tasks[0].status);
        facts.state.free_signals(WITH_GO)
    };
    let all: Vec<u32> = SIGNALS.rev().collect();
    // All are caught: by the runtime.
    assert_eq!(free(&|_| {}), all);
    // None is: in a library.
    assert_eq!(free(&|status| status.caught = 0), all);
    // Some are: by the program itself.
    let without_first = |n: usize| &all[..all.len() - n];
    assert_eq!(free(&|status| status.caught = 0b111 << 34), *without_first(3));
    assert_eq!(free(&|status| status.ignored = 1 << 34), *without_first(1));
    assert_eq!(free(&|status| status.pending = 1 << 61)[..2], [63, 61]);
    // Nobody catches it, and a thread blocks it.
    assert_eq!(
        free(&|status| (status.caught, status.blocked) = (0, 1 << 62))[..1],
        [62]
    );
    assert!(free(&|status| status.blocked = REAL_TIME).is_empty());
}

#[test]
fn a_signal_that_some_threads_block_reaches_the_others() {
    let mut facts = good();
    another(&mut facts, |status| status.blocked = u64::MAX);
    assert_eq!(facts.state.free_signals(WITH_GO).first(), Some(&63));
    // As in a library, where nobody catches them.
    for task in &mut facts.state.tasks {
        task.status.caught = 0;
    }
    assert_eq!(facts.state.free_signals(WITH_GO).first(), Some(&63));
}

#[test]
fn a_program_that_uses_all_signals_is_refused() {
    let condition = after(Requirement::FreeSignal, &[], |facts| {
        facts.state.tasks[0].status.ignored = REAL_TIME;
    });
    assert_eq!(condition.outcome, Outcome::Fails);
    // Without a Go runtime, handlers are the program's own.
    let mut facts = good();
    facts.runtime = Runtime::Absent;
    assert_eq!(of(&facts, Requirement::FreeSignal).outcome, Outcome::Fails);
}

#[test]
fn a_process_that_has_ended_is_not_said_to_be_good() {
    let mut facts = good();
    facts.state.tasks.clear();
    assert!(facts.state.has_ended());
    for requirement in [
        Requirement::NotStopped,
        Requirement::Seccomp,
        Requirement::NoShadowStack,
        Requirement::NoTracer,
        Requirement::FreeSignal,
    ] {
        assert_eq!(of(&facts, requirement).outcome, Outcome::Fails, "{requirement:?}");
    }
}

#[test]
fn what_is_read_of_a_real_process_is_true() {
    let us = Process::open(std::process::id()).expect("we exist");
    let facts = Facts::read(&us, Runtime::Absent, None);
    assert_eq!(facts.state.is_x86_64, Some(true));
    let ours: Vec<u32> = facts
        .state
        .tasks
        .iter()
        .map(|task| task.status.id_inside)
        .collect();
    assert!(ours.contains(&std::process::id()), "{ours:?}");
    assert_eq!(of(&facts, Requirement::NoTracer).outcome, Outcome::Holds);
    let here = what_is_read_of_a_real_process_is_true as *const () as u64;
    assert!(facts.is_code(Avma(here)) && !facts.is_code(Avma(0)));
}
