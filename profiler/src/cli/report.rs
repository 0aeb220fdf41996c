//! `profiler report`.

use super::{args, inputs, stdout};
use anyhow::{Context, Result};
use profiler::report::{self, Order, Report, Select};
use std::process::ExitCode;

/// Runs the command.
pub fn run(args: &args::Report) -> Result<ExitCode> {
    let mut report = Report::new(Select {
        thread: args.thread.clone(),
        focus: args.focus.clone(),
    });
    for path in &args.files {
        let added = report.add(&path.to_string_lossy(), &inputs::read(path)?);
        added.with_context(|| inputs::cannot_use(path))?;
    }
    let text = if args.tree {
        report::tree(&report, args.limit, args.min_share)
    } else {
        let order = match args.sort {
            args::Sort::Own => Order::Own,
            args::Sort::Total => Order::Total,
        };
        report::functions(&report, order, args.limit, args.min_share)
    };
    stdout::write(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
