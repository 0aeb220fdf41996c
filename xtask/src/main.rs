//! What cargo alone cannot do for this repository: `cargo xtask <task>`.
//!
//! A task says what it does, installs what is missing (after saying what and why) and ends with the first
//! failure.

mod bench;
mod bpf;
mod command;
mod demo;
mod fuzz;
mod go;
mod host;
mod kernels;
mod test;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, demonstrates and tests the profiler"
)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure what depends on the machine, and print it beside what was promised
    Bench {
        /// What to measure; everything if not given
        #[arg(value_name = "PART")]
        parts: Vec<String>,
        /// Keep the table, with a description of this machine, in BENCH.md
        #[arg(long)]
        keep: bool,
    },
    /// Build the BPF object that the profiler embeds, profiler/bpf/profiler.bpf.o
    Bpf {
        /// Only check that the object fits its sources; needs no toolchain
        #[arg(long)]
        check: bool,
    },
    /// Build everything, record a program in which Go and C call each other, and draw it (needs root)
    Demo,
    /// Throw bytes at everything that reads foreign bytes
    Fuzz {
        /// What to fuzz; everything if not given
        #[arg(value_name = "TARGET")]
        targets: Vec<String>,
        /// How long each is fuzzed
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Boot the kernels of Debian 12 in emulated machines, and take a sample on each (needs root)
    Kernels,
    /// Everything that must pass before a change is accepted (needs root)
    Test {
        /// Repeat what wants many repetitions often enough to be sure, where otherwise it is often enough to notice
        #[arg(long)]
        full: bool,
    },
    /// Check the rules of the repository that no other tool knows
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::Bench { parts, keep } => bench::run(&parts, keep),
        Task::Bpf { check: true } => bpf::check(),
        Task::Bpf { check: false } => bpf::build(),
        Task::Demo => demo::run(),
        Task::Fuzz { targets, seconds } => fuzz::run(&targets, seconds),
        Task::Kernels => kernels::run(),
        Task::Test { full } => test::run(full),
        Task::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, the causes included, wherever RUST_BACKTRACE is set.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
