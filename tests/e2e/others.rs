//! Programs without Go have true stacks too, or say why not: code that is made while the program runs.

use anyhow::Result;
use profiler_tests::exact::{self, Demand};
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

fn demand<'a>(seen: &'a [&'a str]) -> Demand<'a> {
    Demand {
        seconds: full(SECONDS),
        samples: full(SAMPLES),
        seen,
    }
}
