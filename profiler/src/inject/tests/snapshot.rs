//! The symbolizer, called in a copy of the process.

use super::target::{TOOLCHAINS, Target};
use crate::hooks::Symbolizer;
use crate::hooks::symbolizer::{Function, Oddity};
use crate::inject::snapshot::{self, Asked, Refused};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The address that the symbolizer has trouble with.
const BAD: u64 = 0x666;
/// What it does there: the variable `symbolizer_fault` of the program.
const CRASH: i32 = 1;
const LOOP: i32 = 2;
const LOCK: i32 = 3;
const ALLOCATE: i32 = 4;
const EXIT: i32 = 5;
const NEVER_ENDS: i32 = 6;
const WILD: i32 = 7;
const UNTERMINATED: i32 = 8;
const MARKUP: i32 = 9;
const MEDDLE: i32 = 10;

fn ask(target: &Target, conversation: &mut Symbolizer) -> (Asked, Vec<u32>) {
    let born = Mutex::default();
    let asked = snapshot::ask(
        &target.process(),
        &target.plan,
        target.variable("hook_symbolizer"),
        conversation,
        &|tid| Vec::push(&mut born.lock().expect("nobody panicked"), tid),
    );
    (asked, born.into_inner().expect("nobody panicked"))
}

fn conversation(pcs: impl IntoIterator<Item = u64>) -> Symbolizer {
    let mut conversation = Symbolizer::default();
    pcs.into_iter().for_each(|pc| conversation.ask(pc));
    conversation
}

fn function(name: &str, pc: u64, line: u64) -> Function {
    Function {
        name: Some(format!("{name}_{pc:x}")),
        file: Some("names.c".into()),
        line: Some(line as u32),
        entry: Some(pc & !0xff),
    }
}

fn expected(pc: u64) -> [Function; 2] {
    [function("inlined", pc, pc), function("outer", pc, pc + 1)]
}

#[test]
fn a_symbolizer_names_addresses_in_a_copy_of_the_process_with_every_toolchain() {
    for toolchain in TOOLCHAINS {
        let target = Target::start(toolchain);
        let before = target.state();
        let pcs = (0x1_0000..0x1_0400).step_by(4);
        let mut conversation = conversation(pcs.clone());
        let (asked, born) = ask(&target, &mut conversation);
        assert!(
            asked.refused.is_none() && asked.snapshots == 1 && born.len() == 1,
            "{asked:?}"
        );
        for pc in pcs {
            assert_eq!(conversation.named(pc).expect("named").functions, expected(pc));
        }
        assert!(conversation.oddities().is_empty());
        target.assert_state(&before);
        target.finish();
    }
}

#[test]
fn whatever_a_symbolizer_does_costs_names_and_nothing_else() {
    let target = Target::start("local");
    let before = target.state();
    for (fault, odd, snapshots) in [
        (CRASH, Some(Oddity::Failed), 2),
        (LOOP, Some(Oddity::Failed), 2),
        (LOCK, Some(Oddity::Failed), 2),
        (ALLOCATE, Some(Oddity::Failed), 2),
        (EXIT, Some(Oddity::Failed), 2),
        (NEVER_ENDS, Some(Oddity::Capped), 1),
        (WILD, Some(Oddity::UnreadableString), 1),
        (UNTERMINATED, Some(Oddity::UnterminatedString), 1),
        (MARKUP, None, 1),
        (MEDDLE, None, 1),
    ] {
        target.set("symbolizer_fault", fault);
        let mut conversation = conversation([0x100, BAD, 0x200]);
        let (asked, _) = ask(&target, &mut conversation);
        assert!(asked.refused.is_none(), "{fault}: {asked:?}");
        assert_eq!(asked.snapshots, snapshots, "{fault}");
        assert_eq!(
            conversation.oddities(),
            odd.map(|odd| (odd, 1)).into_iter().collect::<BTreeMap<_, _>>(),
            "{fault}"
        );
        for pc in [0x100, 0x200] {
            assert_eq!(
                conversation.named(pc).expect("named").functions,
                expected(pc),
                "{fault}"
            );
        }
        let functions = &conversation.named(BAD).expect("named").functions;
        let names: Vec<_> = functions.iter().filter_map(|f| f.name.as_deref()).collect();
        match fault {
            MARKUP => assert_eq!(names, ["\u{1b}[2J\n;</text><script>\u{fffd}"; 2]),
            MEDDLE => {
                assert_eq!(names, ["no harm done"; 2]);
                assert_eq!(functions[0].line, Some(1), "it may read");
            }
            _ => {}
        }
        target.assert_state(&before);
    }
    target.finish();
}

#[test]
fn a_symbolizer_that_always_crashes_is_given_up() {
    let target = Target::start("local");
    let before = target.state();
    let mut conversation = conversation(1..=10);
    let born = Mutex::new(0);
    // Not a function at all.
    let asked = snapshot::ask(
        &target.process(),
        &target.plan,
        target.variable("hook_none"),
        &mut conversation,
        &|_| *born.lock().expect("nobody panicked") += 1,
    );
    assert!(matches!(asked.refused, Some(Refused::Broken(3, _))), "{asked:?}");
    assert_eq!(*born.lock().expect("nobody panicked"), 3);
    assert_eq!(conversation.oddities(), BTreeMap::from([(Oddity::Failed, 3)]));
    target.assert_state(&before);
    target.finish();
}

#[test]
fn a_process_that_waits_for_whichever_child_ends_first_does_not_see_snapshots() {
    let target = Target::start("local");
    target.set("hook_waits", 1);
    while target.get("hook_child") == 0 {
        std::thread::yield_now();
    }
    let mut conversation = conversation([0x100, 0x200]);
    let (asked, _) = ask(&target, &mut conversation);
    assert!(asked.refused.is_none(), "{asked:?}");
    assert_eq!(target.get("hook_waited"), 0);
    let child = target.get("hook_child");
    kill(Pid::from_raw(child), Signal::SIGKILL).expect("it can be killed");
    while target.get("hook_waited") == 0 {
        std::thread::yield_now();
    }
    assert_eq!(target.get("hook_waited"), child);
    // It aborts if there was another one to wait for.
    target.finish();
}

#[test]
fn a_process_that_would_be_stopped_for_long_is_not_copied() {
    let target = Target::start("local");
    // 600 MiB that are there.
    target.set("hook_grows", 600);
    while target.get("hook_grows") != 0 {
        std::thread::yield_now();
    }
    let (asked, born) = ask(&target, &mut conversation([0x100]));
    let refused = asked
        .refused
        .map(|refused| refused.to_string())
        .unwrap_or_default();
    assert!(refused.contains("MiB of private memory"), "{refused}");
    assert_eq!((asked.snapshots, born.len()), (0, 0));
    target.finish();
}
