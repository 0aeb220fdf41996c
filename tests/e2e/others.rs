//! Programs without Go have true stacks too, or say why not: Rust, C++ whose parts have no unwind tables, an interpreter, code
//! that is made while the program runs.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Result, ensure};
use profiler_tests::exact::{self, Demand};
use profiler_tests::folded::Stack;
use profiler_tests::profiler;
use profiler_tests::target::Target;
use profiler_tests::{exclusive, full, programs};

/// How long each program is recorded, in seconds, and how many samples it has at least: also where others use the CPUs.
const SECONDS: [u32; 2] = [5, 1];
const SAMPLES: [u64; 2] = [500, 100];

#[test]
fn code_that_is_made_at_run_time_and_named_in_a_perf_map() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("jit/jit.c")?;
    let seen = ["jit_leaf", "jit_outer", "c_middle"];
    exact::record(&program, program.command(), demand(&seen)).map(drop)
}

#[test]
fn parts_without_unwind_tables_are_read_as_machine_code_or_named_as_the_reason() -> Result<()> {
    let _guard = exclusive();
    let no_tables = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
    let framed = [
        &no_tables[..],
        &["-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer"],
    ]
    .concat();
    let parts: [(&str, &[&str]); 2] = [("cpp_bare/framed.c", &framed), ("cpp_bare/bare.c", &no_tables)];
    let program = programs::native_parts("cpp_bare/main.cc", &parts)?;
    let seen = [
        "framed_leaf",
        "bare_leaf",
        "framed_outer",
        "bare_outer",
        "ns::leaf",
    ];
    let recording = exact::record(&program, program.command(), demand(&seen))?;
    // The program throws, and where the unwinder puts the frame of the handler in the place of its own there is no stack.
    let is_true = |stack: &Stack| !stack.is_incomplete() || stack.frames[0].contains("frames-replaced");
    ensure!(recording.stacks()?.stacks.iter().all(is_true));
    let stripped = programs::stripped(&program)?;
    let recording = exact::record(&stripped, stripped.command(), demand(&[]))?;
    ensure!(recording.stacks()?.stacks.iter().any(Stack::is_incomplete));
    Ok(())
}

#[test]
fn rust_with_optimisation() -> Result<()> {
    let _guard = exclusive();
    let program = programs::rust("rust_release")?;
    let seen = ["main::thrower", "main::recurse", "main::generic"];
    exact::record(&program, program.command(), demand(&seen)).map(drop)
}

#[test]
fn an_interpreter_that_c_calls_back() -> Result<()> {
    const LOOP: &str = "_PyEval_EvalFrameDefault";
    let _guard = exclusive();
    let target = Target::start(programs::python("python/recursive.py"))?;
    let recording = profiler::record(exact::arguments(&target, full(SECONDS)))?;
    ensure!(target.finish()?.status.success());
    let (mut all, mut whole, mut deepest) = (0, 0, 0);
    for stack in &recording.stacks()?.stacks {
        let loops = stack.user().iter().filter(|frame| *frame == LOOP).count();
        ensure!(loops <= 11, "{loops} times in the interpreter: {stack:?}");
        all += stack.count;
        whole += if stack.is_incomplete() { 0 } else { stack.count };
        deepest += if loops == 11 { stack.count } else { 0 };
    }
    eprintln!("python: {whole} of {all} stacks are whole, {deepest} of them 11 times in the interpreter");
    ensure!(all >= full(SAMPLES) && whole as f64 >= all as f64 * exact::EXACT / 100.0);
    // Most of the time goes into what is deepest.
    ensure!(deepest * 2 > all);
    Ok(())
}

fn demand<'a>(seen: &'a [&'a str]) -> Demand<'a> {
    Demand {
        seconds: full(SECONDS),
        samples: full(SAMPLES),
        seen,
    }
}
