//! Records the program that is easily harmed (`tests/targets/go_harm`) with its hooks honoured, and holds what it did and
//! what it is afterwards against what it would be if nobody had recorded it.

use crate::folded::{Folded, Stack};
use crate::profiler::{Recorder, Recording};
use crate::programs::Program;
use crate::snapshot::{Freedom, Snapshot};
use crate::target::Target;
use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::process::Command;
use std::time::Duration;

/// A recording that harmed nobody.
#[derive(Debug)]
pub struct Unharmed {
    /// What was recorded.
    pub recording: Recording,
    /// Its stacks, judged.
    pub stacks: Judged,
    /// What the program said of its own work.
    pub report: String,
}

/// The stacks whose innermost function is `c_work`. Each is either as the hook says, or as it was walked.
#[derive(Debug, Default)]
pub struct Judged {
    /// As the hook says.
    pub honoured: u64,
    /// As walked.
    pub walked: u64,
    /// Those that the recording itself calls incomplete.
    pub incomplete: u64,
    /// Neither: what there is of the functions of the program, and how often.
    pub wrong: Vec<(String, u64)>,
}

/// Where work begins in Go and C.
const ROOTS: [&str; 4] = ["main.round", "c_thread", "c_fork", "c_waits"];
/// What each callback goes through, as it is and as the hook says.
const CALLBACK: [[&str; 2]; 2] = [["c_down", "main.goUp"], ["said_of_context", "main.goUp"]];
/// What the innermost function was called by, as it is and as the hook says.
const LEAF: [&str; 2] = ["c_down", "said_of_leaf"];

impl Judged {
    /// Judges the stacks of a recording.
    pub fn of(stacks: &Folded) -> Self {
        let mut judged = Self::default();
        for stack in &stacks.stacks {
            if stack.user().last().is_none_or(|leaf| leaf != "c_work") {
                continue;
            }
            if stack.is_incomplete() {
                judged.incomplete += stack.count;
                continue;
            }
            let frames = own_frames(stack);
            if is_as(&frames, 1) {
                judged.honoured += stack.count;
            } else if is_as(&frames, 0) {
                judged.walked += stack.count;
            } else {
                judged.wrong.push((stack.user().join(";"), stack.count));
            }
        }
        judged
    }
}

/// The functions of the program that say where it is, `c_work` left out.
fn own_frames(stack: &Stack) -> Vec<&str> {
    let is_own = |frame: &&str| {
        ROOTS.contains(frame)
            || LEAF.contains(frame)
            || CALLBACK.iter().any(|callback| callback.contains(frame))
    };
    stack.user().iter().map(String::as_str).filter(is_own).collect()
}

/// Whether these frames, outermost first, are as walked (0), or as the hook says (1).
fn is_as(frames: &[&str], who: usize) -> bool {
    // A library's `main.round` has callbacks beneath itself.
    let root = frames.iter().rposition(|frame| ROOTS.contains(frame));
    let rest = root.map_or(frames, |root| &frames[root + 1..]);
    // Threads that work without a callback have nothing between their beginning and `c_work`.
    if rest.is_empty() {
        return who == 0;
    }
    let (leaf, callbacks) = (rest.last(), &rest[..rest.len() - 1]);
    leaf == Some(&LEAF[who]) && callbacks.chunks(2).all(|callback| callback == CALLBACK[who])
}

/// What is recorded.
#[derive(Debug)]
pub struct Case {
    program: Program,
    command: Command,
    /// What the program changes in itself, as sentences of a snapshot have it.
    own: &'static [&'static str],
    hooks: &'static str,
}

impl Case {
    /// The program in one of its modes.
    pub fn new(program: &Program, mode: &str) -> Self {
        Self::by(program, program.command(), mode)
    }

    /// The same for a command that starts the program, which `program` is or has been built with.
    pub fn by(program: &Program, mut command: Command, mode: &str) -> Self {
        command.arg(mode);
        let own: &[&str] = match mode {
            // SIGCHLD is pending for moments.
            "processes" => &["child of thread", "descriptor", "ShdPnd"],
            // Go lets one of its threads take signals only while somebody wants them.
            "signals" => &["signal set", "blocked"],
            _ => &[],
        };
        Self {
            program: program.clone(),
            command,
            own,
            hooks: "require",
        }
    }

    /// With a variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With `--hooks=auto` instead of `--hooks=require`.
    pub fn auto(mut self) -> Self {
        self.hooks = "auto";
        self
    }

    /// Records the program at 999 Hz with its hooks; `during` decides how long. It has to compute what it computes
    /// alone, and to look as it did before.
    pub fn unharmed(self, during: impl FnOnce(&mut Target) -> Result<()>) -> Result<Unharmed> {
        let alone = checksum_alone(&self.program)?;
        let mut target = Target::start(self.command)?;
        let before = Snapshot::at_rest(target.pid())?;
        let recorder = start(&target, self.hooks)?;
        let recording = finish_after(recorder, || during(&mut target))?;
        let stacks = Judged::of(recording.stacks()?);
        let differences = before.lasting_differences(target.pid(), Freedom::GoRuntime, self.own)?;
        let report = ask(&mut target, "report")?;
        let finished = target.finish()?;
        ensure!(
            differences.is_empty(),
            "the program is not as it was:\n{}\n{}",
            differences.join("\n"),
            recording.stderr
        );
        ensure!(
            finished.status.success() && finished.checksum == alone,
            "{finished:?}, alone {alone}"
        );
        ensure!(
            self.hooks == "auto" || !recording.stderr.contains("warning"),
            "{}",
            recording.stderr
        );
        ensure!(
            stacks.wrong.is_empty(),
            "{:#?}\n{}",
            stacks.wrong,
            recording.stderr
        );
        Ok(Unharmed {
            recording,
            stacks,
            report,
        })
    }
}

/// Ends a recording when what is done meanwhile is done.
pub fn finish_after(mut recorder: Recorder, during: impl FnOnce() -> Result<()>) -> Result<Recording> {
    recorder.wait_until_sampling()?;
    during()?;
    recorder.signal(Signal::INT)?;
    recorder.wait()
}

/// Tells the program something, and reads its answer.
pub fn ask(target: &mut Target, what: &str) -> Result<String> {
    target.command(what)?;
    target.read_line()
}

/// Starts to record the program with `--hooks=MODE`.
pub fn start(target: &Target, hooks: &str) -> Result<Recorder> {
    let pid = target.pid().to_string();
    Recorder::start(["-p", &pid, "-F", "999", "--hooks", hooks])
}

/// The program goes on until its hook has been called `n` times from now on; to be asked before somebody calls it.
pub fn until_called(target: &mut Target, n: u64) -> Result<()> {
    let answer = ask(target, &format!("called {n}"))?;
    ensure!(answer == "called", "{answer:?}");
    Ok(())
}

/// What the program computes when nobody looks.
pub fn checksum_alone(program: &Program) -> Result<String> {
    let mut command = program.command();
    command.args(["rounds", "20"]);
    let finished = Target::start(command)?.wait()?;
    ensure!(finished.status.success(), "{finished:?}");
    Ok(finished.checksum)
}

/// Lets the program work for so long.
pub fn for_seconds(seconds: u64) -> impl FnOnce(&mut Target) -> Result<()> {
    move |target| target.work_for(Duration::from_secs(seconds))
}

impl Unharmed {
    /// A number of the program's report, `name=number`.
    pub fn number(&self, name: &str) -> u64 {
        let words = self.report.split(' ').filter_map(|word| word.split_once('='));
        words
            .filter(|(found, _)| *found == name)
            .find_map(|(_, number)| number.parse().ok())
            .unwrap_or(0)
    }

    /// What was seen, for people.
    pub fn summary(&self) -> Result<String> {
        let (summary, stacks) = (self.recording.summary()?, &self.stacks);
        Ok(format!(
            "{} samples, {} answers, {} for another instruction; in c_work {} as the hook says, {} as walked, {} \
             incomplete; {}",
            summary.kept()?,
            summary.hook_answers()?,
            summary.mismatched_answers()?,
            stacks.honoured,
            stacks.walked,
            stacks.incomplete,
            self.report
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::Judged;
    use crate::folded::Folded;

    #[test]
    fn stacks_are_as_the_hook_says_or_as_walked_or_wrong() {
        let text = "t;main.main;main.round;c_down;goUp;main.goUp;c_down;c_work 3\n\
                    t;main.round;said_of_context;main.goUp;said_of_leaf;c_work 5\n\
                    t;said_of_leaf;c_work 7\n\
                    t;start_thread;c_thread;c_work 11\n\
                    t;main.round;said_of_context;main.goUp;c_down;c_work 13\n\
                    t;[incomplete: no-rule];c_work 17\n\
                    t;main.round 19\n";
        let judged = Judged::of(&Folded::parse(text).unwrap());
        assert_eq!((judged.honoured, judged.walked, judged.incomplete), (12, 14, 17));
        assert_eq!(judged.wrong.len(), 1);
        assert_eq!(judged.wrong[0].1, 13);
    }
}
