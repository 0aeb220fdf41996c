//! Commands about the host and about ourselves.

use clap::Args;
use clap_complete::Shell;
use std::path::PathBuf;

/// Show what this host allows, and what to do about the rest.
///
/// Looks at what a recording needs of this host (kernel, capabilities, settings, clocks) and what makes it better, and
/// says for each lack what to do. Changes nothing. As root it loads the BPF program and starts the sampling clock for
/// a moment, with no target, to see that it works.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 if recordings work, 1 if something that they need is missing.")]
pub struct Doctor {
    /// Write JSON, with stable names of fields.
    #[arg(long)]
    pub json: bool,
}

/// Print what a shell has to load to complete our options.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profiler completions bash > ~/.local/share/bash-completion/completions/profiler
  profiler completions zsh > ~/.zfunc/_profiler
  profiler completions fish > ~/.config/fish/completions/profiler.fish")]
pub struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// Print the manual page, or write it and one for each command to a directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profiler man | man -l -
  profiler man ~/.local/share/man/man1")]
pub struct Man {
    /// Directory that the pages are written to; it has to exist.
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}
