//! Commands that read saved profiles.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Print the hottest functions of a saved profile, or its call tree.
///
/// `self` is time in the function itself, `total` includes what it called; shares are of all samples in the files. Any
/// pprof CPU profile can be read, also those of Go's runtime/pprof and of other profilers, and folded stacks.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profiler report profile.pb.gz
  profiler report profile.pb.gz --sort total --limit 50
  profiler report profile.pb.gz --tree --focus compress

Exit code: 0; 1 if something could not be done.")]
pub struct Report {
    /// Profiles (pprof, or folded stacks if the name ends in .folded); the samples of several are added up.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Show a call tree: callers above callees.
    #[arg(long)]
    pub tree: bool,

    /// What to order functions by; in a tree callees are ordered by total.
    #[arg(long, value_name = "BY", value_enum, default_value_t = Sort::Own, conflicts_with = "tree")]
    pub sort: Sort,

    /// The most functions, or lines of a tree, to show.
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub limit: usize,

    /// Leave out functions, and branches of a tree, whose total is a smaller share of the samples, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "0.5", value_parser = super::percent)]
    pub min_share: f64,

    /// Only samples of threads whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub thread: Option<String>,

    /// Only samples with a function on their stack whose name contains this.
    #[arg(long, value_name = "TEXT")]
    pub focus: Option<String>,
}

/// What functions are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Time in the function itself.
    #[value(name = "self")]
    Own,
    /// Time in the function and what it called.
    Total,
}

/// Draw the flame graph of a saved profile.
///
/// It is the one that `record -o OUT.svg` draws of the same samples.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  profiler flamegraph profile.pb.gz -o flame.svg

Exit code: 0; 1 if something could not be done.")]
pub struct Flamegraph {
    /// Profile: pprof, or folded stacks if the name ends in .folded.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// File to write; it ends in .svg.
    #[arg(short, long, value_name = "FILE", default_value = "flamegraph.svg")]
    pub output: PathBuf,
}

/// Write a saved profile in another format.
///
/// The extension of OUT says which: .svg (flame graph), .pb.gz (pprof),
/// .folded (folded stacks), .json or .json.gz (Firefox Profiler), .speedscope.json (speedscope).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profiler convert profile.pb.gz profile.json.gz        # for profiler.firefox.com
  profiler convert profile.pb.gz profile.speedscope.json
  profiler convert stacks.folded stacks.svg

Folded stacks do not say how long a sample is: what is made of them counts samples and has no times.
Exit code: 0; 1 if something could not be done.")]
pub struct Convert {
    /// Profile: pprof, or folded stacks if the name ends in .folded.
    #[arg(value_name = "IN")]
    pub input: PathBuf,

    /// File to write.
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
}
