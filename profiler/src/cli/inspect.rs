//! `profiler inspect`.

use super::args;
use anyhow::{Context, Result};
use profiler::inspect::{Inspection, json, text};
use profiler::target::process::Process;
use std::io::{ErrorKind, Write};
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
    match std::io::stdout().write_all(shown.as_bytes()) {
        // Whoever reads has seen enough: `head`, a pager.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written
            .map(|()| ExitCode::SUCCESS)
            .context("cannot write to standard output"),
    }
}
