//! A program without Go publishes traceback hooks in a table, and they are honoured.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Result, ensure};
use profiler_tests::exclusive;
use profiler_tests::folded::Stack;
use profiler_tests::profiler::{command, record};
use profiler_tests::programs;
use profiler_tests::snapshot::{Freedom, Snapshot};
use profiler_tests::target::Target;
use serde_json::{Value, json};

/// Share of the samples in scripts that are as the hook says, in percent. The others had no answer in time.
const ANSWERED: f64 = 97.0;

#[test]
fn script_functions_stand_between_the_c_functions_that_run_them() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("bytecode/bytecode.c")?;
    let alone = Target::start(program.command())?.finish()?;
    let target = Target::start(program.command())?;
    let before = Snapshot::at_rest(target.pid())?;
    let pid = target.pid().to_string();
    let recording = record(["-p", &pid, "-F", "499", "-d", "4", "--kernel", "--hooks=require"])?;
    let after = Snapshot::at_rest(target.pid())?;
    let finished = target.finish()?;
    ensure!(
        finished.status.success() && finished.checksum == alone.checksum,
        "{finished:?}, alone {alone:?}"
    );
    let differences = before.differences(&after, Freedom::None);
    ensure!(
        differences.is_empty(),
        "it is not as it was:\n{}",
        differences.join("\n")
    );

    let (mut exact, mut all) = (0, 0);
    let mut others = Vec::new();
    let scripts = recording.stacks()?.stacks.iter().filter(|stack| {
        let in_script = |frame: &String| frame == "interpret" || frame.starts_with("script_");
        !stack.from_kernel() && stack.user().iter().any(in_script)
    });
    for stack in scripts {
        all += stack.count;
        if is_true(stack) {
            exact += stack.count;
        } else {
            others.push(format!("{} {}", stack.count, stack.user().join(";")));
        }
    }
    let share = f64::from(u32::try_from(exact)?) * 100.0 / f64::from(u32::try_from(all)?.max(1));
    eprintln!("{exact} of {all} samples are as the hook says ({share:.2} %)");
    ensure!(
        all >= 300 && share >= ANSWERED,
        "{share:.2} % of {all}:\n{}\n{}",
        others.join("\n"),
        recording.stderr
    );
    Ok(())
}

/// Whether the chain is one that the program can have, and that its hook tells (`bytecode/README.md`).
fn is_true(stack: &Stack) -> bool {
    let chain: Vec<&str> = stack
        .user()
        .iter()
        .map(String::as_str)
        .filter(|&frame| frame != "target_step")
        .collect();
    let [root, "run", scripts @ ..] = &chain[..] else {
        return false;
    };
    let full = [
        "script_main",
        "interpret",
        "script_outer",
        "interpret",
        "script_inner",
        "interpret",
        "native_hash",
    ];
    matches!(*root, "main" | "run_thread")
        && full.starts_with(scripts)
        && matches!(scripts.len(), 2 | 4 | 6 | 7)
}

#[test]
fn the_table_of_a_program_without_go_is_shown() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("bytecode/bytecode.c")?;
    let target = Target::start(program.command())?;
    let pid = target.pid().to_string();
    let output = command(["inspect", "--json", "-p", &pid])?.output()?;
    ensure!(output.status.success(), "{output:?}");
    let seen: Value = serde_json::from_slice(&output.stdout)?;
    let table = &seen["table"];
    ensure!(table["version"] == 0 && table["problem"].is_null(), "{seen:#}");
    ensure!(table["object"] == json!(program.path), "{seen:#}");
    for hook in ["traceback", "symbolizer"] {
        ensure!(
            table[hook]["symbol"] == hook && table[hook]["object"] == json!(program.path),
            "{seen:#}"
        );
    }
    ensure!(seen["go"].is_null() && seen["failing"] == json!([]), "{seen:#}");
    let output = command(["inspect", "-p", &pid])?.output()?;
    let text = String::from_utf8(output.stdout)?;
    for words in ["no Go runtime", "version 0, in ", "hooks can be honoured: yes"] {
        ensure!(text.contains(words), "there is no {words:?} in\n{text}");
    }
    ensure!(target.finish()?.status.success());
    Ok(())
}
