//! Processes that come and go, on the running kernel.

use super::{ModuleIdx, Targets};
use crate::gopclntab::fixtures::run;
use crate::sampler::{Event, Options, Sampler, Scope, Usage};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

const OPTIONS: Options = Options {
    frequency_hz: 99,
    max_frames: 64,
    kernel_frames: false,
    follow_children: false,
    scope: Scope::Host,
    event: Event::Tick,
};

/// Programs with the same code in files of their own.
fn programs(folder: &tempfile::TempDir, n: usize) -> Vec<PathBuf> {
    (0..n)
        .map(|i| {
            let path = folder.path().join(format!("sleep{i}"));
            // Nobody who is being started by another test may have it open for writing (execve(2), `ETXTBSY`).
            run(Command::new("cp").arg("/bin/sleep").arg(&path), &[]);
            path
        })
        .collect()
}

fn end(mut children: Vec<Child>) {
    for child in &mut children {
        child.kill().unwrap();
    }
    for child in &mut children {
        child.wait().unwrap();
    }
}

#[test]
fn what_processes_had_is_free_when_they_have_ended() {
    let (_sampler, tables) = Sampler::load(OPTIONS).unwrap();
    let mut targets = Targets::new(tables, Scope::Host).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let programs = programs(&folder, 4);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sampled = |_: ModuleIdx| false;
    let mut most = Vec::new();
    for _ in 0..3 {
        let children: Vec<Child> = (0..100)
            .map(|i| {
                Command::new(&programs[i % programs.len()])
                    .arg("1000")
                    .spawn()
                    .unwrap()
            })
            .collect();
        for child in &children {
            targets.met(child.id());
        }
        runtime.block_on(targets.load_all());
        let usage = targets.tables.usage();
        assert_eq!(usage.slots, 100);
        assert!(
            usage.mappings >= 200 && usage.rules > 0 && usage.directory > 0,
            "{usage:?}"
        );
        most.push((usage.rules, usage.directory));
        end(children);
        // Ended ones are noticed in one tick and forgotten in the next.
        assert!(targets.tick(sampled) && targets.tick(sampled));
        assert!(targets.processes.is_empty() && targets.images.is_empty());
        let idle = targets.tables.usage();
        assert_eq!((idle.slots, idle.mappings), (0, 0));
        assert_eq!(
            (idle.rules, idle.directory),
            (usage.rules, usage.directory),
            "kept for a while"
        );
        targets.free_tables(Duration::ZERO);
        targets.free_objects(sampled);
        assert_eq!(targets.tables.usage(), Usage::default());
    }
    assert_eq!(most[0], most[1]);
    assert_eq!(
        most[0], most[2],
        "tables are made again when a program comes again"
    );
    assert_eq!(targets.warnings, [""; 0]);
}

#[test]
fn objects_that_samples_are_in_keep_their_names() {
    let (_sampler, tables) = Sampler::load(OPTIONS).unwrap();
    let mut targets = Targets::new(tables, Scope::Host).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = programs(&folder, 1).remove(0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let child = Command::new(&program).arg("1000").spawn().unwrap();
    targets.met(child.id());
    runtime.block_on(targets.load_all());
    end(vec![child]);
    let is_program = |targets: &Targets, at| targets.modules.get(at).entry.name == program.to_string_lossy();
    let of_program: Vec<ModuleIdx> = targets
        .modules
        .iter()
        .map(|(at, _)| at)
        .filter(|&at| is_program(&targets, at))
        .collect();
    targets.tick(|_| true);
    targets.tick(|_| true);
    targets.free_tables(Duration::ZERO);
    targets.free_objects(|at| of_program.contains(&at));
    for (at, module) in targets.modules.iter() {
        let is_known = matches!(module.content, super::Content::Object(..));
        assert_eq!(is_known, of_program.contains(&at), "{module:?}");
    }
}

#[test]
fn processes_that_cannot_be_followed_are_left_to_be_met_again() {
    let (_sampler, tables) = Sampler::load(OPTIONS).unwrap();
    let mut targets = Targets::new(tables, Scope::Host).unwrap();
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    targets.met(child.id());
    assert!(targets.processes.is_empty() && targets.turned_away.is_empty());
    assert_eq!(targets.tables.usage(), Usage::default());
}
