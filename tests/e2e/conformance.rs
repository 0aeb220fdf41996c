//! The programs that Go's own distribution tests the traceback protocol with, recorded by us and by Go itself at the same
//! time: both profiles have the same stacks, except for what [`profiler_tests::conformance`] lists.
#![allow(clippy::print_stderr, reason = "the figures are what these tests are for")]

use anyhow::{Result, ensure};
use profiler_tests::conformance::{Compared, Hooks};
use profiler_tests::pprof::{self, Frame, Sample};
use profiler_tests::profiler::{Recorder, Recording, record};
use profiler_tests::programs::GO_TOOLCHAINS;
use profiler_tests::stats::{Counts, chance, total_variation};
use profiler_tests::target::Target;
use profiler_tests::testprogcgo::{Driven, TestProgCgo};
use profiler_tests::{exclusive, full};
use std::path::PathBuf;
use tempfile::TempDir;

/// How much further apart than 99 of 100 pairs are by chance two profiles may be. What both do not see alike are
/// instructions, some in each change between Go and C, not stacks. The mean of such pairs would be no measure: Go's profiles have
/// some hundred samples of as many stacks, and chance alone takes their distance further from its mean than this.
const SLACK: f64 = 0.03;

/// Share of the samples in which hooks have something to say that must have their answer, in percent.
const ANSWERED: f64 = 97.0;

/// Share of the samples that may have other frames of hooks than in the other profile. Once in some hundred samples Go gives
/// a callback the context of another one, see [`profiler_tests::conformance`], where no frame shows that it does.
const SHIFTED: f64 = 0.01;

/// Fewer samples than this on either side prove little. Go takes a hundred a second at most.
const SAMPLES: u64 = 50;

const NO_HOOKS: Hooks<'_> = Hooks {
    within: "",
    frames: &[],
    leaf: false,
    contexts: false,
    symbolizer: false,
    context_of: |_| 0,
};

/// The hooks of testprogcgo/tracebackctxt_c.c.
const NUMBERED: Hooks<'_> = Hooks {
    frames: &["cFunction"],
    contexts: true,
    symbolizer: true,
    context_of: numbered,
    ..NO_HOOKS
};

/// The frames of context n have the lines n · 0x100 + i, and those that are inlined there 0x10000 more.
fn numbered(frame: &Frame) -> u64 {
    let line = frame
        .place
        .rsplit(':')
        .next()
        .and_then(|line| line.parse::<u64>().ok());
    line.unwrap_or(0) % 0x10000 / 0x100
}

#[test]
fn interrupted_c_is_what_the_hook_says_it_is() -> Result<()> {
    let _guard = exclusive();
    let hooks = Hooks {
        within: "main._Cfunc_cpuHog",
        frames: &["cpuHog", "cpuHog2"],
        leaf: true,
        ..NO_HOOKS
    };
    let builds = GO_TOOLCHAINS.map(|toolchain| (toolchain, "exe"));
    // `hooks` has the other form.
    for &(toolchain, mode) in full([&[&builds[..], &[("local", "pie")]].concat()[..], &builds]) {
        let programs = TestProgCgo::build(toolchain, mode)?;
        let both = Both::record(&programs, "CgoPprof", Driven::Rounds, "require")?;
        both.agree(&format!("{toolchain} {mode}, CgoPprof"), &hooks)?;
    }
    Ok(())
}

#[test]
fn contexts_and_inlined_functions_stand_as_in_go() -> Result<()> {
    let _guard = exclusive();
    let hooks = Hooks {
        within: "main.TracebackContext",
        ..NUMBERED
    };
    for toolchain in GO_TOOLCHAINS {
        let programs = TestProgCgo::build(toolchain, "exe")?;
        let both = Both::record(&programs, "TracebackContext", Driven::Rounds, "require")?;
        both.agree(&format!("{toolchain}, TracebackContext"), &hooks)?;
    }
    Ok(())
}

#[test]
fn a_context_that_comes_and_goes_stands_as_in_go() -> Result<()> {
    let _guard = exclusive();
    // Go has this program since 1.26.
    let programs = TestProgCgo::build("local", "exe")?;
    let both = Both::record(&programs, "TracebackContextProfile", Driven::Rounds, "require")?;
    let hooks = Hooks {
        within: "main._Cfunc_TracebackContextProfileCallGo",
        ..NUMBERED
    };
    both.agree("TracebackContextProfile", &hooks)
}

#[test]
fn a_context_under_preemption_stands_as_in_go() -> Result<()> {
    let _guard = exclusive();
    let programs = TestProgCgo::build("local", "exe")?;
    let both = Both::record(&programs, "TracebackContextPreemption", Driven::Rounds, "require")?;
    let hooks = Hooks {
        within: "main.TracebackContextPreemptionGoFunction",
        ..NUMBERED
    };
    both.agree("TracebackContextPreemption", &hooks)
}

#[test]
fn a_thread_that_go_does_not_know_is_what_the_hook_says_it_is() -> Result<()> {
    let _guard = exclusive();
    let hooks = Hooks {
        within: "cpuHogThread",
        frames: &["cpuHogThread", "cpuHogThread2"],
        leaf: true,
        ..NO_HOOKS
    };
    for &toolchain in full([&GO_TOOLCHAINS[..], &GO_TOOLCHAINS[2..]]) {
        let programs = TestProgCgo::build(toolchain, "exe")?;
        let both = Both::record(&programs, "CgoPprofThread", Driven::Once, "require")?;
        both.agree(&format!("{toolchain}, CgoPprofThread"), &hooks)?;
    }
    Ok(())
}

#[test]
fn a_thread_that_go_does_not_know_gets_out_of_a_hook_that_hangs() -> Result<()> {
    let _guard = exclusive();
    let programs = TestProgCgo::build("local", "exe")?;
    let (mut target, _folder) = start(&programs, "CgoPprofThread", Driven::Once)?;
    target.command("hang")?;
    let pid = target.pid().to_string();
    let asked = record(["-p", &pid, "-d", "2", "-F", "499", "--hooks=require"])?;
    asked.stacks()?;
    ensure!(asked.stderr.contains("taken out of it"), "{}", asked.stderr);
    let after = record(["-p", &pid, "-d", "1", "-F", "499", "--hooks=off"])?;
    ensure!(after.stacks()?.with_frame("cpuHogDriver") >= SAMPLES);
    ensure!(after.stacks()?.with_frame("pprofCgoThreadTraceback") == 0);
    ensure!(target.finish()?.status.success());
    Ok(())
}

#[test]
fn a_slow_hook_costs_its_own_answers_and_nothing_else() -> Result<()> {
    let _guard = exclusive();
    let programs = TestProgCgo::build("local", "exe")?;
    let (mut target, _folder) = start(&programs, "GoroutineProfile", Driven::Once)?;
    let pid = target.pid().to_string();
    let recording = record([
        "-p",
        &pid,
        "-d",
        "3",
        "-F",
        "499",
        "--no-kernel",
        "--hooks=require",
    ])?;
    ensure!(output(&mut target)? == "OK");
    ensure!(target.finish()?.status.success());
    let stacks = recording.stacks()?;
    let in_callback = stacks.with_frame("main.GoSleep");
    eprintln!(
        "GoroutineProfile: {in_callback} of {} samples\n{}",
        stacks.total(),
        recording.stderr
    );
    ensure!(in_callback >= SAMPLES);
    ensure!(
        recording.stderr.contains("is not called any more"),
        "{}",
        recording.stderr
    );
    Ok(())
}

#[test]
fn the_race_detector_finds_no_race_where_hooks_are_asked() -> Result<()> {
    let _guard = exclusive();
    let programs = TestProgCgo::build("local", "race")?;
    let both = Both::record(&programs, "CgoRaceprof", Driven::Rounds, "require")?;
    let (ours, _) = both.samples()?;
    // The hook gives the number of the call, times 1024 (testprogcgo/raceprof.go), which is no address of the program.
    let said = |sample: &&Sample| {
        sample
            .frames
            .iter()
            .any(|frame| frame.function.starts_with("[unmapped"))
    };
    let said: Vec<&Sample> = ours.iter().filter(said).collect();
    eprintln!("CgoRaceprof: {} stacks that the hook spoke of", said.len());
    ensure!(!said.is_empty(), "{}", both.recording.stderr);
    for sample in said {
        let leaf = &sample.frames[0];
        ensure!(leaf.address.is_multiple_of(1024), "{sample:?}");
    }
    Ok(())
}

#[test]
fn go_that_a_thread_of_c_called_is_not_lost_when_c_has_returned() -> Result<()> {
    let _guard = exclusive();
    // Go 1.21 has neither the program nor what it is a test of (go.dev/issue/72870).
    for toolchain in ["go1.24.11", "local"] {
        let programs = TestProgCgo::build(toolchain, "exe")?;
        let both = Both::record(&programs, "CgoCallbackPprof", Driven::Once, "auto")?;
        let hooks = Hooks {
            within: "main.go_callback1",
            ..NO_HOOKS
        };
        both.agree(&format!("{toolchain}, CgoCallbackPprof"), &hooks)?;
    }
    Ok(())
}

#[test]
fn a_thread_that_go_does_not_know_is_recorded_as_walked_without_a_hook() -> Result<()> {
    let _guard = exclusive();
    let programs = TestProgCgo::build("local", "exe")?;
    let (target, _folder) = start(&programs, "CgoPprofThreadNoTraceback", Driven::Once)?;
    let required = record(["-p", &target.pid().to_string(), "-d", "1", "--hooks=require"])?;
    ensure!(required.status.code() == Some(1), "{required:?}");
    drop(target);

    let both = Both::record(&programs, "CgoPprofThreadNoTraceback", Driven::Once, "auto")?;
    let (ours, theirs) = both.samples()?;
    let count = |samples: &[Sample], is_meant: fn(&Sample) -> bool| -> u64 {
        samples
            .iter()
            .filter(|sample| is_meant(sample))
            .map(|sample| sample.count)
            .sum()
    };
    let in_thread = count(&ours, |sample| {
        sample.frames.len() >= 2
            && sample.frames[0].function == "cpuHogThread"
            && sample.frames[1].function == "cpuHogDriver"
    });
    let external = count(&theirs, |sample| {
        sample
            .frames
            .last()
            .is_some_and(|frame| frame.function == "runtime._ExternalCode")
    });
    let all = count(&ours, |_| true);
    eprintln!("CgoPprofThreadNoTraceback: {in_thread} of our {all} samples, {external} of Go's");
    ensure!(in_thread >= SAMPLES && external >= SAMPLES);
    ensure!(in_thread as f64 >= all as f64 * ANSWERED / 100.0);
    Ok(())
}

/// One program, recorded by us and by Go.
struct Both {
    recording: Recording,
    /// Files of Go's own profiles.
    own: Vec<PathBuf>,
    /// Where they are.
    _folder: TempDir,
}

impl Both {
    /// Records a program. A driver that runs it in rounds leaves Go's own profile to the program if it takes one.
    fn record(programs: &TestProgCgo, name: &str, how: Driven, hooks: &str) -> Result<Self> {
        let (mut target, folder) = start(programs, name, how)?;
        // What was before our recording is not compared.
        let takes_profiles = how == Driven::Rounds && !files(&output(&mut target)?).is_empty();
        let pid = target.pid().to_string();
        let hooks = format!("--hooks={hooks}");
        let mut recorder = Recorder::start(["-p", &pid, "-F", "499", "-d", "3", "--no-kernel", &hooks])?;
        recorder.wait_until_sampling()?;
        if !takes_profiles {
            target.command("profile")?;
        }
        let recording = recorder.wait()?;
        let output = output(&mut target)?;
        ensure!(target.finish()?.status.success());
        Ok(Self {
            recording,
            own: files(&output),
            _folder: folder,
        })
    }

    /// Our samples, and Go's own.
    fn samples(&self) -> Result<(Vec<Sample>, Vec<Sample>)> {
        self.recording.stacks()?;
        Ok((
            pprof::samples(&[self.recording.pprof()])?,
            pprof::samples(&self.own)?,
        ))
    }

    /// Compares the stacks of both.
    fn agree(&self, what: &str, hooks: &Hooks<'_>) -> Result<()> {
        let (ours, theirs) = self.samples()?;
        let compared = Compared::new(&ours, &theirs, hooks);
        let (ours, theirs) = (&compared.ours, &compared.theirs);
        let total = |counts: &Counts| counts.values().sum::<u64>();
        let (all, own) = (total(&ours.seen), total(&theirs.seen));
        let distance = total_variation(&ours.seen, &theirs.seen);
        let expected = chance(&ours.seen, &theirs.seen);
        let asked = compared.answered + compared.unanswered;
        let answered = compared.answered as f64 * 100.0 / asked.max(1) as f64;
        let (ours_only, theirs_only) = (ours.not_in(theirs), theirs.not_in(ours));
        eprintln!(
            "{what}: ours {all} samples, Go's {own}; distance {distance:.3}, by chance {:.3} (99 %: {:.3}); {} of {asked} \
             have their answer ({answered:.2} %), {} in the kernel have not; {} and {} have another one than the other profile; \
             {} of signal handlers",
            expected.mean,
            expected.p99,
            compared.answered,
            compared.in_kernel,
            ours_only.0,
            theirs_only.0,
            compared.in_handler
        );
        let report = || {
            format!(
                "{}\n{}",
                self.recording.stderr,
                side_by_side(&ours.seen, &theirs.seen)
            )
        };
        ensure!(
            all >= SAMPLES && own >= SAMPLES,
            "{what}: too few samples\n{}",
            report()
        );
        ensure!(
            asked == 0 || answered >= ANSWERED,
            "{what}: {answered:.2} % have their answer\n{}",
            report()
        );
        for (strange, all) in [(ours_only, all), (theirs_only, own)] {
            ensure!(
                strange.0 as f64 <= all as f64 * SHIFTED,
                "{what}: only one profile has\n{}\n{}",
                strange.1.map_or("", String::as_str),
                report()
            );
        }
        let said = total_variation(&ours.said, &theirs.said);
        let said_by_chance = chance(&ours.said, &theirs.said);
        ensure!(
            distance <= expected.p99 + SLACK && said <= said_by_chance.p99 + SLACK,
            "{what}: too far apart; {:?} and {:?}\n{}",
            ours.said,
            theirs.said,
            report()
        );
        Ok(())
    }
}

/// Starts a program, which writes its files to a folder of its own.
fn start(programs: &TestProgCgo, name: &str, how: Driven) -> Result<(Target, TempDir)> {
    let folder = tempfile::tempdir()?;
    let mut command = programs.driven(name, how);
    command.env("TMPDIR", folder.path());
    Ok((Target::start(command)?, folder))
}

/// What the program has printed since the last time.
fn output(target: &mut Target) -> Result<String> {
    target.command("output")?;
    target.read_line()
}

fn files(output: &str) -> Vec<PathBuf> {
    let words = output.split_whitespace().map(PathBuf::from);
    words.filter(|path| path.is_file()).collect()
}

fn side_by_side(ours: &Counts, theirs: &Counts) -> String {
    let count = |counts: &Counts, stack: &String| counts.get(stack).copied().unwrap_or(0);
    let mut rows: Vec<_> = ours
        .keys()
        .chain(theirs.keys().filter(|stack| !ours.contains_key(*stack)))
        .map(|stack| (count(ours, stack), count(theirs, stack), stack))
        .collect();
    let all = |counts: &Counts| counts.values().sum::<u64>().max(1) as f64;
    let apart = |(a, b, _): &(u64, u64, &String)| (*a as f64 / all(ours) - *b as f64 / all(theirs)).abs();
    rows.sort_by(|a, b| apart(b).total_cmp(&apart(a)));
    let row = |(ours, theirs, stack): &(u64, u64, &String)| {
        format!(
            "ours {ours}, Go's {theirs}\n    {}\n",
            stack.replace('\n', "\n    ")
        )
    };
    rows.iter().take(12).map(row).collect()
}
