//! A program without Go that publishes hooks.

use super::death::{alone, come_and_go, die_at_every_step, honour, name};
use super::target::{COOKIE, Target};
use super::{ask_threads, install};
use crate::addr::Avma;
use crate::hooks::Symbolizer;
use crate::inject::{Disposition, Mapping, snapshot};
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

/// What its thread that can be borrowed does.
const ALL: [&str; 5] = ["spin", "futex", "pipe", "poll", "wait"];

pub(super) fn program() -> PathBuf {
    static BUILT: LazyLock<TempDir> = LazyLock::new(|| {
        let dir = TempDir::new().expect("temporary directory");
        let source = dir.path().join("table.c");
        std::fs::write(&source, include_str!("testdata/table.c")).expect("source is written");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-no-pie", "-pthread", "-fomit-frame-pointer", "-o"])
            .arg(dir.path().join("table"))
            .arg(source)
            .args(["-I", concat!(env!("CARGO_MANIFEST_DIR"), "/include"), "-lm"]);
        crate::gopclntab::fixtures::run(&mut gcc, &[]);
        dir
    });
    BUILT.path().join("table")
}

fn start(what: &str) -> Target {
    Target::run(Command::new(program()).arg(what))
}

/// Its thread has not noticed anything.
fn works(target: &mut Target) {
    target.tell("work");
    assert_eq!(target.line(), "works\n");
}

#[test]
fn hooks_answer_for_the_interrupted_code_whatever_the_borrowed_thread_did() {
    for what in ALL {
        let mut target = start(what);
        let before = target.state();
        let installed = install(&target);
        let tids: Vec<u32> = target.workers.keys().copied().collect();
        // A signal would end the other calls early: nobody is asked in a system call.
        let asked: &[u32] = if what == "spin" { &tids } else { &[] };
        let answers = ask_threads(&target, &installed, 200, asked);
        for answer in &answers {
            assert_eq!(answer.leaf, Some(vec![answer.pc, Avma(0x700_0001)]), "{answer:?}");
            assert_eq!(answer.cookie, COOKIE | u64::from(tids[0]));
            assert!(answer.contexts.is_empty() && !answer.is_overrun, "{answer:?}");
        }
        works(&mut target);
        let left = installed
            .leave(Some(answers.len() as u64))
            .expect("it can be left");
        assert_eq!(
            (left.disposition, left.mapping),
            (Disposition::Restored, Mapping::Unmapped)
        );
        target.assert_state(&before);
        works(&mut target);
        target.finish();
    }
}

#[test]
fn a_symbolizer_is_asked_whatever_the_borrowed_thread_did() {
    for what in ALL {
        let mut target = start(what);
        let before = target.state();
        let mut conversation = Symbolizer::default();
        conversation.ask(0x700_0001);
        let asked = snapshot::ask(
            &target.process(),
            &target.plan,
            target.variable("hook_symbolizer"),
            &mut conversation,
            &|_| {},
        );
        assert!(asked.refused.is_none(), "{what}: {asked:?}");
        let named = conversation.named(0x700_0001).expect("an answer");
        let names: Vec<_> = named
            .functions
            .iter()
            .map(|function| function.name.as_deref())
            .collect();
        assert_eq!(names, [Some("inlined_7000001"), Some("script_7000001")], "{what}");
        target.assert_state(&before);
        works(&mut target);
        target.finish();
    }
}

#[test]
fn the_program_survives_our_death_at_every_step_whatever_the_borrowed_thread_did() {
    alone(
        "table::the_program_survives_our_death_at_every_step_whatever_the_borrowed_thread_did",
        || {
            for what in ALL {
                // A signal would end the other calls early.
                let act = if what == "spin" { honour } else { come_and_go };
                die_at_every_step(start(what), act, works, (60, 20));
            }
        },
    );
}

#[test]
fn the_program_survives_our_death_at_every_step_of_a_snapshot() {
    alone(
        "table::the_program_survives_our_death_at_every_step_of_a_snapshot",
        || {
            for what in ALL {
                die_at_every_step(start(what), name, works, (80, 60));
            }
        },
    );
}

#[test]
fn a_hundred_cycles_are_not_noticed() {
    for what in ALL {
        let mut target = start(what);
        let before = target.state();
        for _ in 0..100 {
            install(&target).leave(Some(0)).expect("it can be left");
        }
        target.assert_state(&before);
        works(&mut target);
        target.finish();
    }
}
