//! Recorders that are not ours: which version of each is measured, and how it is told what to record.
//!
//! All are told to record one process, at the same rate as far as they can be told, and to write a file; all are ended as a
//! person would, by Ctrl-C: a duration is not honoured by all of them for a process that runs already. What of the
//! kernel is in their stacks is for them to say: only `perf` can be told to leave it out, as `profiler` is.

use super::Figure;
use super::paired::Sampling;
use anyhow::{Context, Result, bail, ensure};
use profiler_tests::target;
use profiler_tests::usage::{self, Usage};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Nothing here takes longer to begin, the largest tables included.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a recorder gets after it has opened its perf events, for tables and buffers: none tells when it is done with them.
const BEGINS: Duration = Duration::from_secs(1);
/// What a recorder has open that has perf events. Who attaches a BPF program to one by a link may close the event itself.
const EVENTS: [&str; 2] = ["anon_inode:[perf_event]", "anon_inode:bpf_link"];

/// The file that has what a recorder says.
const SAID: &str = "stderr";

/// A recorder that is not ours.
#[derive(Debug)]
pub(super) struct Foreign {
    /// What it is called in the table.
    name: &'static str,
    /// Its executable, which is looked for in `PATH`.
    program: &'static str,
    /// What is measured; none for `perf`, whose version is the kernel's.
    pin: Option<Pin>,
    /// The rates nearest to [`super::cost::RATES`] that it accepts, in Hz.
    pub(super) rates: [u32; 2],
    /// Its arguments, between spaces, with `{pid}`, `{rate}` and `{output}`.
    args: &'static str,
    /// The name of the file that it writes; most tell the format by its end.
    output: &'static str,
}

/// A version, and where it is from.
#[derive(Debug)]
struct Pin {
    /// The package that `cargo install` knows.
    package: &'static str,
    version: &'static str,
}

/// What `profiler` is measured beside.
const ALL: &[Foreign] = &[
    // perf-record(1): `:u` leaves the kernel out.
    Foreign {
        name: "perf record, no stacks",
        program: "perf",
        pin: None,
        rates: [99, 999],
        args: "record -e cpu-clock:u -F {rate} -p {pid} -o {output}",
        output: "perf.data",
    },
    Foreign {
        name: "perf record, frame pointers",
        program: "perf",
        pin: None,
        rates: [99, 999],
        args: "record -e cpu-clock:u -F {rate} --call-graph fp -p {pid} -o {output}",
        output: "perf.data",
    },
    Foreign {
        name: "perf record, copied stacks",
        program: "perf",
        pin: None,
        rates: [99, 999],
        args: "record -e cpu-clock:u -F {rate} --call-graph dwarf -p {pid} -o {output}",
        output: "perf.data",
    },
    // `samply record --help`: without `--save-only` it stays, as a web server. Where there is no counter of cycles, as in many
    // virtual machines, it takes the CPU clock, but only if /proc/sys/kernel/perf_event_paranoid is at most 1, even for root.
    Foreign {
        name: "samply",
        program: "samply",
        pin: Some(Pin {
            package: "samply",
            version: "0.13.1",
        }),
        rates: [99, 999],
        args: "record --save-only --rate {rate} --output {output} --pid {pid}",
        output: "profile.json.gz",
    },
    // `probee --help`: without `--time 0` it ends by itself; with `--dwarf` it does as `profiler` does, and walks in the kernel by
    // tables. The package has no executable of its own name: `pbee` is the same program again.
    Foreign {
        name: "profile-bee",
        program: "probee",
        pin: Some(Pin {
            package: "profile-bee",
            version: "0.3.13",
        }),
        rates: [99, 999],
        args: "--dwarf true --frequency {rate} --time 0 --output {output} --pid {pid}",
        output: "profile.pb.gz",
    },
    // `lightswitch --help`: the rate is a prime number. It is a flame graph unless a format is given, and walks by tables. It looks
    // for tracefs below /sys/kernel/debug only, where debugfs has to be mounted.
    Foreign {
        name: "lightswitch",
        program: "lightswitch",
        pin: Some(Pin {
            package: "lightswitch",
            version: "0.7.0",
        }),
        rates: [97, 997],
        args: "--sample-freq {rate} --profile-format pprof --profile-name {output} --pids {pid}",
        output: "profile.pb",
    },
];

/// Those that are installed in the version that is measured; and a line for each of the others.
pub(super) fn installed() -> (Vec<&'static Foreign>, Vec<Figure>) {
    let (mut there, mut others) = (Vec::new(), Vec::new());
    for foreign in ALL {
        match foreign.refusal() {
            None => there.push(foreign),
            Some(why) => others.push(foreign.left_out(&why)),
        }
    }
    (there, others)
}

impl Foreign {
    /// What it is called in the table, with the version.
    pub(super) fn label(&self) -> String {
        match &self.pin {
            Some(pin) => format!("{} {}", self.name, pin.version),
            None => self.name.to_owned(),
        }
    }

    /// The line of the table that stands for one that was not measured.
    pub(super) fn left_out(&self, why: &str) -> Figure {
        Figure::new(format!("{} was left out: {why}", self.label()), "", "")
    }

    /// Why it is not measured, if it is not.
    fn refusal(&self) -> Option<String> {
        match Command::new(self.program).arg("--version").output() {
            Ok(output) => self
                .pin
                .as_ref()?
                .refusal(&String::from_utf8_lossy(&output.stdout)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let how = self.pin.as_ref().map(|pin| format!(" ({})", pin.command()));
                Some(format!("it is not installed{}", how.unwrap_or_default()))
            }
            Err(error) => Some(format!("it cannot be started: {error}")),
        }
    }

    /// The command that records a process until it is ended.
    fn command(&self, pid: u32, rate: u32, folder: &Path) -> Result<Command> {
        let output = folder.join(self.output);
        let output = output.to_str().context("a temporary path is not Unicode")?;
        let mut command = Command::new(self.program);
        // In the folder, for what it keeps beside its file.
        command.current_dir(folder);
        for arg in self.args.split(' ') {
            command.arg(
                arg.replace("{pid}", &pid.to_string())
                    .replace("{rate}", &rate.to_string())
                    .replace("{output}", output),
            );
        }
        Ok(command)
    }

    /// What a recording of a process needs that is ended after some seconds.
    pub(super) fn usage(&self, pid: u32, rate: u32, seconds: u32, folder: &Path) -> Result<Usage> {
        let record = self.command(pid, rate, folder)?;
        // What it waits for counts as its own. With `--foreground` there is but one signal: a second one kills.
        let used = usage::of(
            Command::new("timeout")
                .args(["--foreground", "--signal=INT", &seconds.to_string()])
                .arg(record.get_program())
                .args(record.get_args())
                .current_dir(folder),
        )?;
        // timeout(1): 124 if the time was up, else what the command ended with.
        ensure!(
            used.status.code() == Some(124),
            "it ended too early: {}: {}",
            used.status,
            complaint(&used.stderr)
        );
        self.check(folder)?;
        Ok(used)
    }

    /// Fails unless a recording left a file in its folder.
    fn check(&self, folder: &Path) -> Result<()> {
        let written = fs::metadata(folder.join(self.output)).map_or(0, |file| file.len());
        ensure!(written > 0, "it recorded nothing");
        Ok(())
    }

    /// Starts a recording of a process, and waits until it samples.
    pub(super) fn start(&'static self, pid: u32, rate: u32) -> Result<Running> {
        let folder = TempDir::new()?;
        let child = self
            .command(pid, rate, folder.path())?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join(SAID))?)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program))?;
        let mut running = Running {
            child,
            foreign: self,
            folder,
        };
        running.wait_until_sampling()?;
        Ok(running)
    }
}

impl Pin {
    /// Why an executable is not measured that says so about its version.
    fn refusal(&self, said: &str) -> Option<String> {
        let found = version(said).unwrap_or("unknown");
        (found != self.version).then(|| format!("version {found} is installed ({})", self.command()))
    }

    /// What installs it.
    fn command(&self) -> String {
        format!(
            "cargo install {} --version {} --locked",
            self.package, self.version
        )
    }
}

/// The version in what a program says when it is asked for it: its name and the version, in one line.
fn version(said: &str) -> Option<&str> {
    let mut words = said.lines().next()?.split_whitespace();
    words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
}

/// What a recorder complains of, in one line, for the table: most explain themselves at length.
fn complaint(said: &str) -> &str {
    let mut lines = said.lines().map(str::trim);
    lines
        .find(|line| !line.is_empty())
        .unwrap_or("it does not say why")
}

/// A recording by another recorder. The recorder is killed when this is dropped.
pub(super) struct Running {
    child: Child,
    foreign: &'static Foreign,
    folder: TempDir,
}

impl Running {
    /// Waits until the recorder has perf events, as all of them sample by these, and then [`BEGINS`].
    fn wait_until_sampling(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.has_perf_event() {
            if let Some(status) = self.child.try_wait()? {
                let said = fs::read_to_string(self.folder.path().join(SAID)).unwrap_or_default();
                bail!("it ended before it took a sample: {status}: {}", complaint(&said));
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "it opened no perf event in {PATIENCE:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(BEGINS);
        Ok(())
    }

    fn has_perf_event(&self) -> bool {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        fds.into_iter()
            .flatten()
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|file| EVENTS.iter().any(|event| file == Path::new(event)))
    }
}

impl Sampling for Running {
    fn end(mut self: Box<Self>) -> Result<()> {
        ensure!(
            self.child.try_wait()?.is_none(),
            "it ended while the program worked"
        );
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("it has no process id")?;
        kill_process(pid, Signal::INT)?;
        self.child.wait()?;
        self.foreign.check(self.folder.path())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        target::end(&mut self.child);
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL, Foreign, complaint, version};
    use std::path::Path;

    fn named(name: &str) -> &'static Foreign {
        ALL.iter().find(|foreign| foreign.name == name).unwrap()
    }

    /// Its command line for process 7, at its higher rate.
    fn line(name: &str) -> String {
        let foreign = named(name);
        let command = foreign.command(7, foreign.rates[1], Path::new("/t")).unwrap();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words
            .map(|word| word.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_version_is_what_follows_the_name() {
        assert_eq!(version("samply 0.13.1\n"), Some("0.13.1"));
        assert_eq!(
            version("perf version 6.1.4\nbuilt with 2 libraries"),
            Some("6.1.4")
        );
        assert_eq!(version("samply\n1.0"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn only_the_pinned_version_is_measured() {
        let pin = named("samply").pin.as_ref().unwrap();
        assert_eq!(pin.refusal("samply 0.13.1\n"), None);
        assert_eq!(
            pin.refusal("samply 0.13.10\n").unwrap(),
            "version 0.13.10 is installed (cargo install samply --version 0.13.1 --locked)"
        );
        assert!(pin.refusal("what?").unwrap().contains("unknown"));
    }

    #[test]
    fn each_recorder_is_told_process_rate_and_file() {
        assert_eq!(
            line("perf record, copied stacks"),
            "perf record -e cpu-clock:u -F 999 --call-graph dwarf -p 7 -o /t/perf.data"
        );
        assert_eq!(
            line("samply"),
            "samply record --save-only --rate 999 --output /t/profile.json.gz --pid 7"
        );
        assert_eq!(
            line("profile-bee"),
            "probee --dwarf true --frequency 999 --time 0 --output /t/profile.pb.gz --pid 7"
        );
        assert_eq!(
            line("lightswitch"),
            "lightswitch --sample-freq 997 --profile-format pprof --profile-name /t/profile.pb --pids 7"
        );
        for foreign in ALL {
            assert!(!line(foreign.name).contains(['{', '}']), "{foreign:?}");
        }
    }

    #[test]
    fn a_complaint_is_one_line() {
        assert_eq!(complaint("\n  no permission\nDo this:\n"), "no permission");
        assert_eq!(complaint("\n"), "it does not say why");
    }

    #[test]
    fn one_that_is_not_installed_is_a_line() {
        let missing = Foreign {
            program: "no-such-recorder",
            pin: None,
            ..*named("perf record, no stacks")
        };
        assert_eq!(missing.refusal().unwrap(), "it is not installed");
        assert_eq!(
            missing.left_out("why").what,
            "perf record, no stacks was left out: why"
        );
    }
}
