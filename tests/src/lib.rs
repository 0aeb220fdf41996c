//! Harness of the end-to-end tests: real programs, a real kernel, exact expected stacks.
//!
//! * [`programs`] builds the programs to be profiled (`tests/targets`), [`target`] runs them.
//! * [`profiler`] runs the profiler and reads what it wrote, [`folded`], [`pprof`] and [`traced`] parse it.
//! * [`comparable`] makes our stacks and those of Go's own profile comparable, [`functions`] finds functions without names.
//! * [`chain`] says which call chains are true, and judges stacks by it; [`exact`] records a program and demands it.
//! * [`conformance`] brings our stacks and those of Go's own profile into one form.
//! * [`synthetic`] makes profiles that nobody recorded.
//! * [`stats`] tells disagreement from chance, [`cpu_time`] counts what the scheduler gave, [`usage`] what a program
//!   needed.
//! * [`harm`] records a program that is easily harmed.
//! * [`snapshot`] takes down what a process looks like, to prove that it was left alone.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub mod chain;
pub mod comparable;
pub mod conformance;
pub mod cpu_time;
pub mod exact;
pub mod folded;
pub mod functions;
pub mod harm;
pub mod pprof;
pub mod profiler;
pub mod programs;
pub mod snapshot;
pub mod stats;
pub mod synthetic;
pub mod target;
pub mod testprogcgo;
pub mod traced;
pub mod usage;

/// Lets one end-to-end test run at a time: each wants the CPUs to itself.
///
/// Cargo runs test binaries one after the other, so a lock inside the process is enough.
pub fn exclusive() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing behind that the next one could trip over.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first number in the full test, `cargo xtask test --full`; else the second.
pub fn full<T>([full, quick]: [T; 2]) -> T {
    if std::env::var_os("PROFILER_TEST_FULL").is_some() {
        full
    } else {
        quick
    }
}
