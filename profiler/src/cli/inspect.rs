//! `profiler inspect`.

use super::{args, stdout};
use anyhow::{Context, Result};
use profiler::inspect::{Inspection, json, text};
use profiler::target::process::Process;
use std::process::ExitCode;

/// Runs the command.
pub fn run(args: &args::Inspect) -> Result<ExitCode> {
    let inspection = Process::open(args.pid)
        .and_then(|process| Inspection::of(&process))
        .context("cannot inspect")?;
    let shown = if args.json {
        json::json(&inspection)
    } else {
        text::text(&inspection)
    };
    stdout::write(shown.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
