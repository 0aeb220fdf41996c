//! What was typed.

mod host;
mod saved;

pub use host::{Completions, Doctor, Man};
pub use saved::{Convert, Flamegraph, Report, Sort};

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};
use profiler::compare::{self, report};
use profiler::record::HookMode;
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

// The first paragraph of each is its line in the list of commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Record(Record),
    Report(Report),
    Flamegraph(Flamegraph),
    Convert(Convert),
    Diff(Diff),
    Check(Box<Check>),
    Inspect(Inspect),
    Doctor(Doctor),
    Completions(Completions),
    Man(Man),
}

/// Record running processes, a command from its first instruction, or a whole host.
///
/// Samples the stacks of the targets until Ctrl-C, SIGTERM, the end of the duration or the end of the last target,
/// then writes the files.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo profiler record -p 1234 -d 10
  sudo profiler record -p 1234 -o flame.svg -o stacks.folded
  sudo profiler record -F 999 -- ./server --port 8080
  sudo profiler record -a -d 30
  sudo profiler record --cgroup system.slice/nginx.service -d 30

The first Ctrl-C ends the recording and writes everything; a second one quits at once.
Exit code: 0, or that of the command after `--`; 1 if something could not be done.")]
pub struct Record {
    /// Process to record; may be given several times.
    #[arg(short, long = "pid", value_name = "PID", required_unless_present_any = ["command", "all", "cgroup"])]
    pub pids: Vec<u32>,

    /// Record the whole host: every process, also those that start later, and the kernel. Stacks begin with the name of
    /// the process. Traceback hooks are not asked unless --hooks=auto says so.
    #[arg(short, long, conflicts_with_all = ["pids", "command", "cgroup"])]
    pub all: bool,

    /// Record every process in this control group (version 2) and those below it, in the same way: the path of its
    /// directory, or that from /sys/fs/cgroup on, as /proc/PID/cgroup has it.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["pids", "command"])]
    pub cgroup: Option<PathBuf>,

    /// Samples per second and CPU.
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 99, value_parser = frequency)]
    pub frequency: u64,

    /// Seconds to record; without it, until Ctrl-C or the end of the targets.
    #[arg(short, long, value_name = "SECONDS", value_parser = duration)]
    pub duration: Option<std::time::Duration>,

    /// File to write; may be given several times. The extension says the format: .svg (flame graph), .pb.gz
    /// (pprof), .folded (folded stacks), .json or .json.gz (Firefox Profiler), .speedscope.json (speedscope). Without
    /// it: profile.pb.gz and flamegraph.svg.
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

    /// Record where threads wait, and for how long, instead of what they do: the time between leaving the CPU and having
    /// it again, of threads that could not go on. Traceback hooks are not asked.
    #[arg(long, conflicts_with = "frequency")]
    pub off_cpu: bool,

    /// The shortest wait that is in the profile, in milliseconds; shorter ones are only counted.
    #[arg(long, value_name = "MS", default_value = "1", value_parser = milliseconds, requires = "off_cpu")]
    pub min_block: std::time::Duration,

    /// Begin stacks with the name of the process, and the name and id of the thread.
    #[arg(long)]
    pub per_thread: bool,

    /// Begin stacks with the value of this label, which the program gave (pprof.Do of Go); may be given several times.
    #[arg(long = "tag", value_name = "LABEL")]
    pub tags: Vec<String>,

    /// Whether to ask the program's own traceback hooks (runtime.SetCgoTraceback of Go). To do so, a signal handler is
    /// put into the process; see the README for what that means. If not given, auto; with -a, --cgroup and --off-cpu, off.
    #[arg(long, value_enum, value_name = "WHEN")]
    pub hooks: Option<Hooks>,

    /// Write the closing table as JSON, too.
    #[arg(long, value_name = "FILE")]
    pub summary_json: Option<PathBuf>,

    /// Command to start and record, with its children.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pids")]
    pub command: Vec<OsString>,
}

/// When hooks are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Hooks {
    /// Where it is possible; elsewhere stacks are as walked.
    Auto,
    /// Never: nothing in a process is touched.
    Off,
    /// Always; where it is not possible there is no recording.
    Require,
}

impl From<Hooks> for HookMode {
    fn from(when: Hooks) -> Self {
        match when {
            Hooks::Auto => Self::Auto,
            Hooks::Off => Self::Off,
            Hooks::Require => Self::Require,
        }
    }
}

/// Show what is in a running process: Go runtime, traceback hooks, unwind rules.
///
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

/// Show what changed between two sets of profiles.
///
/// Shows what changed between two profiles, or between two sets of them, by function and by stack, the largest change
/// first. Nothing is judged: see `profiler check`.
///
/// Shares are of a run's own samples, so a longer recording does not look slower. Any pprof CPU profile can be read, also
/// those of Go's runtime/pprof, `go test -cpuprofile` and pprof-rs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profiler diff before.pb.gz after.pb.gz
  profiler diff before.pb.gz after.pb.gz -o d.svg
  profiler diff main-*.pb.gz --new branch-*.pb.gz -o d.folded

In the graph the width of a box is its share in the candidate; red has become more, blue less. Code that only the
baseline has stands beside the rest.
Exit code: 0; 1 if something could not be done.")]
pub struct Diff {
    /// The baseline and the candidate; with --new, files of the baseline only.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Files of the candidate, where a side has several.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub new: Vec<PathBuf>,

    /// File to write; may be given several times. The extension says the format: .svg (differential flame graph),
    /// .folded (stacks with both counts).
    #[arg(short, long = "output", value_name = "FILE")]
    pub outputs: Vec<PathBuf>,

    /// How many functions, and how many stacks, to show.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub top: usize,
}

/// Decide whether code got slower, from several profiles of each version; made for CI.
///
/// Decides whether the candidate got slower than the baseline. Several runs of each are needed, of the same work on the
/// same host: at least 3, 8 are good. Runs of unchanged code differ, and only from several can it be known by how much.
///
/// A function fails if its cost rose beyond chance (Welch's test over runs; corrected for the number of functions) and,
/// with confidence, by more than --min-change. The CPU time of the whole program is compared as well.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profiler check --baseline main-*.pb.gz --candidate branch-*.pb.gz
  profiler check --baseline main-*.pb.gz --candidate branch-*.pb.gz \\
    --format github --format markdown=summary.md --format junit=check.xml
  sudo profiler check --record 8 --against ./bench-old -- ./bench-new
  sudo profiler check --update baselines --record 8 -- ./bench        # on the main branch
  sudo profiler check --baseline-dir baselines --record 8 -- ./bench  # on others

Exit code:
  0  pass: nothing got slower
  1  error: the files could not be read or compared
  2  regression
  3  inconclusive: these data cannot show it; the report says why")]
pub struct Check {
    /// Profiles of the version to compare with.
    #[arg(long, required_unless_present_any = ["against", "update", "baseline_dir"], value_name = "FILE", num_args = 1..)]
    pub baseline: Vec<PathBuf>,

    /// Compare with the runs that --update keeps in this directory, of hosts like the candidate's.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["baseline", "against", "update"])]
    pub baseline_dir: Option<PathBuf>,

    /// Compare with the runs kept in this directory, of hosts like the candidate's, and if the check does not fail keep
    /// the candidate's there as well. As long as fewer than 3 are there, they are kept without a verdict.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["baseline", "against"])]
    pub update: Option<PathBuf>,

    /// How many runs --update keeps of each class of hosts: the youngest.
    #[arg(long, value_name = "N", default_value_t = 16, requires = "update",
          value_parser = clap::value_parser!(u32).range(3..=1000))]
    pub keep: u32,

    /// After how many days a kept run counts no more; --update removes it.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    pub max_age: u64,

    /// Profiles of the version in question.
    #[arg(long, required_unless_present = "record", value_name = "FILE", num_args = 1..)]
    pub candidate: Vec<PathBuf>,

    /// Record N runs of the command behind `--`; they are the candidate.
    #[arg(long, value_name = "N", requires = "command", conflicts_with = "candidate",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub record: Option<u32>,

    /// Record as many runs of this line for the shell, in turns; they are the baseline. A line without quotes, variables and
    /// the like is run without a shell, so that the recording is of the program.
    #[arg(
        long,
        value_name = "COMMAND",
        requires = "record",
        conflicts_with = "baseline"
    )]
    pub against: Option<String>,

    /// Samples per second and CPU of these recordings.
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 997, value_parser = frequency)]
    pub frequency: u64,

    /// Command to record, with its children.
    #[arg(
        last = true,
        value_name = "COMMAND",
        requires = "record",
        conflicts_with = "candidate"
    )]
    pub command: Vec<OsString>,

    /// Smallest rise that is a regression, in percent; 5 if not given.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub min_change: Option<f64>,

    /// Functions with a smaller share of the samples are not tested, in percent; 1 if not given.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub min_share: Option<f64>,

    /// How often a check of unchanged code may fail; 0.05 if not given.
    #[arg(long, value_name = "P")]
    pub alpha: Option<f64>,

    /// What makes the exit code 2; regression if not given. `never` makes it 0 always.
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    pub fail_on: Vec<FailOn>,

    /// What the cost of the whole program is: CPU time per run (each run does the same work; the default), per second
    /// (a service under equal load), or nothing that can be compared.
    #[arg(long, value_name = "COST", value_enum)]
    pub program_cost: Option<ProgramCost>,

    /// Function not to test; `*` stands for any text. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub ignore: Vec<String>,

    /// Difference between the sides that shall not prevent a pass. May be given several times.
    #[arg(
        long = "allow-difference",
        value_name = "FACT",
        value_enum,
        value_delimiter = ','
    )]
    pub allow_differences: Vec<Fact>,

    /// File with thresholds and rules; profiler.toml of the current directory if it is there. Options have precedence.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How to report, and to which file: text, markdown, json, junit or github, as FORMAT or FORMAT=FILE. May be given
    /// several times; text if not given.
    #[arg(long = "format", value_name = "FORMAT[=FILE]", value_parser = report_to)]
    pub formats: Vec<ReportTo>,
}

/// A report, and the file that it goes to; the terminal if there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportTo {
    pub format: report::Format,
    pub path: Option<PathBuf>,
}

/// Makes a type of the library one that clap knows the values of.
macro_rules! value_enum {
    ($name:ident, $of:ty, [$($label:literal => $value:expr),* $(,)?]) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub $of);

        impl ValueEnum for $name {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self($value)),*]
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                [$(($value, $label)),*]
                    .into_iter()
                    .find(|(value, _)| *value == self.0)
                    .map(|(_, label)| PossibleValue::new(label))
            }
        }
    };
}

value_enum!(FailOn, compare::FailOn, [
    "regression" => compare::FailOn::Regression,
    "suspect" => compare::FailOn::Suspect,
    "inconclusive" => compare::FailOn::Inconclusive,
    "never" => compare::FailOn::Never,
]);

value_enum!(ProgramCost, compare::ProgramCost, [
    "per-run" => compare::ProgramCost::PerRun,
    "per-second" => compare::ProgramCost::PerSecond,
    "ignore" => compare::ProgramCost::Ignore,
]);

value_enum!(Fact, compare::Fact, [
    "cpu" => compare::Fact::Cpu,
    "cpus" => compare::Fact::Cpus,
    "machine" => compare::Fact::Machine,
    "kernel" => compare::Fact::Kernel,
    "completeness" => compare::Fact::Completeness,
    "loss" => compare::Fact::Loss,
]);

/// A percentage, as a fraction.
fn percent(text: &str) -> Result<f64, String> {
    let text = text.trim().trim_end_matches('%').trim_end();
    let percent: f64 = text.parse().map_err(|error| format!("{error}"))?;
    Ok(percent / 100.0)
}

fn report_to(text: &str) -> Result<ReportTo, String> {
    let (label, path) = match text.split_once('=') {
        Some((_, "")) => return Err("there is no file behind the =".into()),
        Some((label, path)) => (label, Some(PathBuf::from(path))),
        None => (text, None),
    };
    let format = report::Format::ALL
        .into_iter()
        .find(|format| format.label() == label)
        .ok_or("it has to be text, markdown, json, junit or github")?;
    Ok(ReportTo { format, path })
}

fn frequency(text: &str) -> Result<u64, String> {
    let hz: u64 = text.parse().map_err(|error| format!("{error}"))?;
    if hz == 0 {
        return Err("no samples would be taken; 99 is a good choice".into());
    }
    // The kernel refuses clocks that are faster than this sysctl, even for root (perf_event_open(2)).
    let limit = std::fs::read_to_string("/proc/sys/kernel/perf_event_max_sample_rate");
    allowed(hz, limit.ok().and_then(|limit| limit.trim().parse().ok()))
}

/// A frequency that the kernel gives, whose limit is `limit`.
fn allowed(hz: u64, limit: Option<u64>) -> Result<u64, String> {
    const NAME: &str = "kernel.perf_event_max_sample_rate";
    if hz > MAX_FREQUENCY_HZ {
        let limit = limit.map_or_else(String::new, |limit| format!("; sysctl {NAME} is {limit}"));
        return Err(format!(
            "the kernel's clock does not tick faster than {MAX_FREQUENCY_HZ} Hz{limit}"
        ));
    }
    match limit {
        Some(limit) if hz > limit => Err(format!(
            "the kernel allows {limit} Hz: that is what sysctl {NAME} is; `sudo sysctl -w {NAME}={hz}` raises it"
        )),
        _ => Ok(hz),
    }
}

fn milliseconds(text: &str) -> Result<std::time::Duration, String> {
    let ms: f64 = text.parse().map_err(|error| format!("{error}"))?;
    std::time::Duration::try_from_secs_f64(ms / 1e3)
        .ok()
        .ok_or_else(|| "it has to be a number of milliseconds, 0 or more".into())
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
    use super::{Check, Cli, Command, Diff, Record, ReportTo, allowed};
    use clap::{CommandFactory, Parser};
    use profiler::compare::FailOn;
    use profiler::compare::report::Format;
    use std::path::PathBuf;

    fn record(args: &[&str]) -> Result<Record, clap::Error> {
        match Cli::try_parse_from(["profiler", "record"].iter().chain(args))?.command {
            Command::Record(record) => Ok(record),
            other => panic!("{other:?}"),
        }
    }

    fn check(args: &[&str]) -> Result<Check, clap::Error> {
        match Cli::try_parse_from(["profiler", "check"].iter().chain(args))?.command {
            Command::Check(check) => Ok(*check),
            other => panic!("{other:?}"),
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
        for bad in [
            &["-p", "1", "--", "true"][..],
            &["-a", "-p", "1"],
            &["-a", "--", "true"],
            &["-a", "--cgroup", "x"],
            &["--cgroup", "x", "-p", "1"],
        ] {
            assert!(record(bad).is_err(), "{bad:?}");
        }
        assert!(record(&["-p", "1", "--off-cpu", "-F", "99"]).is_err());
        assert!(record(&["-p", "1", "--min-block", "5"]).is_err());
        let off_cpu = record(&["-p", "1", "--off-cpu"]).expect("valid");
        assert_eq!(off_cpu.min_block.as_millis(), 1);
        assert!(record(&["-a"]).expect("valid").all);
        assert!(record(&["--cgroup", "a/b"]).expect("valid").cgroup.is_some());
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
    fn a_frequency_above_the_limit_of_the_kernel_names_the_setting() {
        assert_eq!(allowed(999, Some(999)), Ok(999));
        assert_eq!(allowed(100_000, None), Ok(100_000));
        let error = allowed(1000, Some(999)).expect_err("too many");
        assert!(
            error.contains("999 Hz") && error.contains("sysctl -w kernel.perf_event_max_sample_rate=1000"),
            "{error}"
        );
        let error = allowed(100_001, Some(200_000)).expect_err("too many");
        assert!(
            error.contains("100000 Hz; sysctl kernel.perf_event_max_sample_rate is 200000"),
            "{error}"
        );
    }

    #[test]
    fn several_files_can_follow_one_option() {
        let record = record(&["-o", "a.svg", "b.folded", "-o", "c.pb.gz", "-p", "1"]).expect("valid");
        assert_eq!(record.outputs.len(), 3);
    }

    #[test]
    fn a_check_has_several_files_a_side_and_several_reports() {
        let args = "--baseline a b --candidate c d e --min-change 10 --min-share 0.5% --fail-on suspect,inconclusive \
                    --format github --format json=out.json";
        let check = check(&args.split_whitespace().collect::<Vec<_>>()).expect("valid");
        assert_eq!((check.baseline.len(), check.candidate.len()), (2, 3));
        assert_eq!((check.min_change, check.min_share), (Some(0.1), Some(0.005)));
        assert_eq!(
            check.fail_on.iter().map(|fail_on| fail_on.0).collect::<Vec<_>>(),
            [FailOn::Suspect, FailOn::Inconclusive]
        );
        assert_eq!(
            check.formats[1],
            ReportTo {
                format: Format::Json,
                path: Some(PathBuf::from("out.json"))
            }
        );
    }

    #[test]
    fn a_check_without_a_side_or_with_an_unknown_format_is_refused() {
        assert!(check(&["--baseline", "a"]).is_err());
        for bad in [
            "--format=xml",
            "--format=json=",
            "--fail-on=maybe",
            "--min-change=x",
        ] {
            assert!(
                check(&["--baseline", "a", "--candidate", "b", bad]).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_check_can_record_its_runs() {
        let check = check(&["--record", "8", "--against", "./old 1", "--", "./new", "1"]).expect("valid");
        assert_eq!(
            (check.record, check.against.as_deref()),
            (Some(8), Some("./old 1"))
        );
        assert_eq!(check.command, ["./new", "1"]);
        for bad in [
            &["--record", "8", "--baseline", "a"][..],
            &["--record", "8", "--", "true"],
            &["--baseline", "a", "--candidate", "b", "--", "true"],
            &["--record", "8", "--baseline", "a", "--against", "x", "--", "true"],
        ] {
            assert!(super::tests::check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_difference_takes_two_files_or_two_sets() {
        let diff = |args: &[&str]| -> Diff {
            match Cli::try_parse_from(["profiler", "diff"].iter().chain(args))
                .expect("valid")
                .command
            {
                Command::Diff(diff) => diff,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(diff(&["a", "b", "-o", "d.svg"]).files.len(), 2);
        let sets = diff(&["a", "b", "--new", "c", "d", "-o", "d.svg"]);
        assert_eq!((sets.files.len(), sets.new.len(), sets.outputs.len()), (2, 2, 1));
    }
}
