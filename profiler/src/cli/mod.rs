//! The command line: the only part that prints and that decides exit codes.

mod args;
mod baselines;
mod check;
mod convert;
mod diff;
mod doctor;
mod hint;
mod inputs;
mod inspect;
mod manual;
mod outputs;
mod preflight;
mod progress;
mod record;
mod report;
mod runs;
mod sides;
mod stdout;
mod sys;

use clap::Parser;
use std::process::ExitCode;

/// Parses, runs, and turns an error into a message and an exit code.
pub fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a closed terminal. clap's own exit code, 2, means something else here.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let result = match cli.command {
        args::Command::Record(record) => record::run(record),
        args::Command::Report(report) => report::run(&report),
        args::Command::Flamegraph(flamegraph) => convert::flamegraph(&flamegraph),
        args::Command::Convert(convert) => convert::run(&convert),
        args::Command::Diff(diff) => diff::run(&diff),
        args::Command::Check(check) => check::run(&check),
        args::Command::Inspect(inspect) => inspect::run(&inspect),
        args::Command::Doctor(doctor) => doctor::run(&doctor),
        args::Command::Completions(completions) => manual::completions(&completions),
        args::Command::Man(man) => manual::pages(&man),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            explain(&error);
            ExitCode::FAILURE
        }
    }
}

/// One line for the error and its causes, and one for what can be done about it.
#[expect(clippy::print_stderr, reason = "errors go to the terminal")]
fn explain(error: &anyhow::Error) {
    eprintln!("profiler: {}", profiler::format::escape(&format!("{error:#}")));
    if let Some(hint) = hint::of(error) {
        eprintln!("  hint: {hint}");
    }
}
