//! `profiler completions` and `profiler man`: what is made of the definition of the command line.

use super::{args, outputs, stdout};
use anyhow::{Context, Result};
use clap::CommandFactory;
use std::process::ExitCode;

/// Runs `profiler completions`.
pub fn completions(args: &args::Completions) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::Cli::command(), "profiler", &mut script);
    stdout::write(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `profiler man`.
pub fn pages(args: &args::Man) -> Result<ExitCode> {
    let mut command = args::Cli::command().disable_help_subcommand(true);
    let Some(directory) = &args.directory else {
        stdout::write(&page(&command)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    // Gives the commands their names, `profiler-record`.
    command.build();
    let mut pages = vec![(directory.join("profiler.1"), page(&command)?)];
    for command in command.get_subcommands() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        pages.push((directory.join(format!("{name}.1")), page(command)?));
    }
    for (path, page) in &pages {
        outputs::write(path, page)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn page(command: &clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .context("cannot make the manual page")?;
    Ok(page)
}
