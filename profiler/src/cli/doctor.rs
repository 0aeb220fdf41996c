//! `profiler doctor`.

use super::{args, stdout};
use anyhow::Result;
use profiler::doctor::{self, Host};
use std::process::ExitCode;

/// Runs the command.
pub fn run(args: &args::Doctor) -> Result<ExitCode> {
    let checks = doctor::checks(&Host::look());
    let shown = if args.json {
        doctor::json(&checks)
    } else {
        doctor::text(&checks)
    };
    stdout::write(shown.as_bytes())?;
    Ok(if doctor::can_record(&checks) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
