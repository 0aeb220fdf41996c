//! What was typed.

use clap::{Args, Parser, Subcommand};
use profiler::sampler::MAX_FREQUENCY_HZ;
use std::ffi::OsString;
use std::path::PathBuf;

/// Draws the true call chains of running programs, also where Go, C and other native code call each other.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Record running processes, or a command from its first instruction.
    Record(Record),
    /// Show what is in a running process: Go runtime, traceback hooks, unwind rules.
    Inspect(Inspect),
}

/// Samples the stacks of the targets until Ctrl-C, SIGTERM, the end of the duration or the end of the last target,
/// then writes the files.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo profiler record -p 1234 -d 10
  sudo profiler record -p 1234 -o flame.svg -o stacks.folded
  sudo profiler record -F 999 -- ./server --port 8080

The first Ctrl-C ends the recording and writes everything; a second one quits at once.
Exit code: 0, or that of the command after `--`; 1 if something could not be done.")]
pub struct Record {
    /// Process to record; may be given several times.
    #[arg(short, long = "pid", value_name = "PID", required_unless_present = "command")]
    pub pids: Vec<u32>,

    /// Samples per second and CPU.
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 99, value_parser = frequency)]
    pub frequency: u64,

    /// Seconds to record; without it, until Ctrl-C or the end of the targets.
    #[arg(short, long, value_name = "SECONDS", value_parser = duration)]
    pub duration: Option<std::time::Duration>,

    /// File to write; may be given several times. The extension says the format: .svg (flame graph), .pb.gz
    /// (pprof), .folded (folded stacks). Without it: profile.pb.gz and flamegraph.svg.
    #[arg(short, long = "output", value_name = "FILE", num_args = 1..)]
    pub outputs: Vec<PathBuf>,

    /// Show kernel frames.
    #[arg(long, overrides_with = "no_kernel")]
    pub kernel: bool,

    /// Leave kernel frames out; time in the kernel then counts for the function that called it.
    #[arg(long)]
    pub no_kernel: bool,

    /// The most user frames of a stack; what is nearer to the root is cut off, with a mark.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub max_frames: u32,

    /// Write the closing table as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub summary_json: Option<PathBuf>,

    /// Command to start and record, with its children.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pids")]
    pub command: Vec<OsString>,
}

/// Looks at a process, without touching it: its Go runtime, the traceback hooks that it registered with
/// runtime.SetCgoTraceback and the contexts that are live, how much of its code has unwind rules, and whether its
/// hooks can be honoured.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo profiler inspect -p 1234
  sudo profiler inspect -p 1234 --json

Exit code: 0, also when hooks cannot be honoured; 1 if the process could not be looked at.")]
pub struct Inspect {
    /// Process to look at.
    #[arg(short, long, value_name = "PID")]
    pub pid: u32,

    /// Write JSON, with stable names of fields.
    #[arg(long)]
    pub json: bool,
}

fn frequency(text: &str) -> Result<u64, String> {
    let hz: u64 = text.parse().map_err(|error| format!("{error}"))?;
    if hz == 0 {
        return Err("no samples would be taken; 99 is a good choice".into());
    }
    // The kernel refuses clocks that are faster than this sysctl, even for root (perf_event_open(2)).
    let sysctl = "/proc/sys/kernel/perf_event_max_sample_rate";
    let limit = std::fs::read_to_string(sysctl)
        .ok()
        .and_then(|limit| limit.trim().parse().ok());
    match limit.unwrap_or(MAX_FREQUENCY_HZ).min(MAX_FREQUENCY_HZ) {
        limit if hz <= limit => Ok(hz),
        limit if limit == MAX_FREQUENCY_HZ => {
            Err(format!("the kernel's clock does not tick faster than {limit} Hz"))
        }
        limit => Err(format!(
            "the kernel allows {limit} Hz (sysctl kernel.perf_event_max_sample_rate)"
        )),
    }
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match std::time::Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it has to be a positive number of seconds".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cli, Command, Record};
    use clap::{CommandFactory, Parser};

    fn record(args: &[&str]) -> Result<Record, clap::Error> {
        match Cli::try_parse_from(["profiler", "record"].iter().chain(args))?.command {
            Command::Record(record) => Ok(record),
            other => panic!("another command: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_after_two_dashes_belong_to_the_command() {
        let record = record(&["-F", "999", "--", "server", "-p", "80"]).expect("valid");
        assert_eq!(record.command, ["server", "-p", "80"]);
        assert_eq!(record.frequency, 999);
        assert!(record.pids.is_empty());
    }

    #[test]
    fn a_recording_needs_a_target_and_only_one_kind_of_it() {
        assert!(record(&[]).is_err());
        assert!(record(&["-p", "1", "--", "true"]).is_err());
        assert_eq!(record(&["-p", "1", "-p", "2"]).expect("valid").pids, [1, 2]);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for bad in [
            ["-F", "0"],
            ["-F", "100001"],
            ["-d", "0"],
            ["-d", "-1"],
            ["--max-frames", "513"],
        ] {
            let args = ["-p", "1"].iter().chain(&bad).copied().collect::<Vec<_>>();
            assert!(record(&args).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn several_files_can_follow_one_option() {
        let record = record(&["-o", "a.svg", "b.folded", "-o", "c.pb.gz", "-p", "1"]).expect("valid");
        assert_eq!(record.outputs.len(), 3);
    }
}
