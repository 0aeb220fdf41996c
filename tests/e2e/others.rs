//! Programs without Go have true stacks too, or say why not: code that is made while the program runs.

use anyhow::Result;
use profiler_tests::{exact, exclusive, full, programs};

/// How long each program is recorded.
const SECONDS: [u32; 2] = [5, 1];

#[test]
fn code_that_is_made_at_run_time_and_named_in_a_perf_map() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("jit/jit.c")?;
    let seen = ["jit_leaf", "jit_outer", "c_middle"];
    exact::record(&program, program.command(), full(SECONDS), &seen).map(drop)
}
