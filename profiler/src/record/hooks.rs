//! Honouring the traceback hooks of watched processes: the helper goes in, samples wait for its answers, it leaves.

use super::targets::Targets;
use crate::addr::Avma;
use crate::explain::explain;
use crate::hooks::answer::{MAX_PCS, PcList};
use crate::hooks::join::{Asked, Counts};
use crate::hooks::{Answer, Join};
use crate::inject::{self, Disposition, Installed, Mapped, Mapping};
use crate::profile::HookAnswers;
use crate::sampler::{self, RawSample};
use crate::target::process::Process;
use profiler_abi::sample::Header;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How many threads of a process may be asked in a tenth of a second: fewer than fit into the helper's memory between
/// two times that answers are fetched.
const PER_WINDOW: u32 = 1000;

/// So many samples in a row without an answer, and the process is not asked any more.
const BREAKER: u64 = 50;

/// How long answers that are still under way are waited for at the end.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether traceback hooks are honoured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// No: nothing in a process is touched.
    #[default]
    Off,
    /// Where it is possible; elsewhere stacks are as walked, and the run says why.
    Auto,
    /// Yes: where it is not possible, there is no recording.
    Require,
}

/// The processes whose hooks are honoured.
#[derive(Default)]
pub struct Hooks {
    processes: HashMap<u32, Honoured>,
    counts: Counts,
    were_engaged: bool,
    /// What there is to tell the user, since it was last taken.
    pub warnings: Vec<String>,
}

/// A process with the helper in it.
struct Honoured {
    installed: Installed,
    join: Join<Vec<u8>>,
    /// Threads that were asked, as far as their samples have come.
    asked: u64,
    /// Samples in a row that had no answer.
    unanswered: u64,
    is_open: bool,
}

impl Hooks {
    /// Puts the helper into process `pid`. False if the program has registered no traceback function.
    ///
    /// # Errors
    /// Its hooks cannot be honoured, for this reason.
    pub fn engage(&mut self, targets: &Targets, pid: u32) -> Result<bool, String> {
        let Some(plan) = targets.plan(pid)? else {
            return Ok(false);
        };
        let process = Process::open(pid).map_err(|error| error.to_string())?;
        let is_registered = process
            .memory(plan.traceback.0, 8)
            .map_err(|error| error.to_string())?
            .iter()
            .any(|&byte| byte != 0);
        if !is_registered {
            return Ok(false);
        }
        let installed = Mapped::new(process, plan)
            .and_then(Mapped::install)
            .map_err(|error| explain(&error))?;
        installed.enable(true);
        self.were_engaged = true;
        self.processes.insert(
            pid,
            Honoured {
                installed,
                join: Join::default(),
                asked: 0,
                unanswered: 0,
                is_open: true,
            },
        );
        Ok(true)
    }

    /// Whether any process is honoured.
    pub fn is_engaged(&self) -> bool {
        !self.processes.is_empty()
    }

    /// From now on sampled threads are asked.
    pub fn start(&self, targets: &mut Targets) {
        for (&pid, honoured) in &self.processes {
            targets.ask(pid, honoured.installed.signal(), PER_WINDOW);
        }
    }

    /// Keeps a sample whose thread was asked until its answer comes. False if nobody answers for its process.
    pub fn sample(&mut self, sample: &RawSample<'_>, bytes: &[u8]) -> bool {
        let header = &sample.header;
        let Some(honoured) = self.processes.get_mut(&header.tgid) else {
            return false;
        };
        let Some(pc) = sample.leaf() else {
            return false;
        };
        honoured.asked += 1;
        let asked = Asked {
            thread: header.cookie,
            pc,
            cookie: if header.flags & Header::COOKIE == 0 {
                0
            } else {
                header.time_ns
            },
            time_ns: header.time_ns,
        };
        honoured.join.sample(asked, bytes.to_vec());
        true
    }

    /// Fetches the answers that have come, and gives back each sample that waits no more.
    pub fn fetch(&mut self, targets: &mut Targets, mut each: impl FnMut(&Targets, Vec<u8>, Option<Answer>)) {
        let now = now_ns();
        for (&pid, honoured) in &mut self.processes {
            for answer in honoured.installed.answers() {
                if answer.is_overrun && honoured.is_open {
                    honoured.close(pid, targets);
                    self.warnings.push(format!(
                        "the traceback hook of process {pid} wrote beyond its buffer: it is not called any more"
                    ));
                }
                honoured.join.answer(understood(&answer), now);
            }
            honoured.join.advance(now);
            honoured.pass_on(targets, &mut each);
            if honoured.unanswered >= BREAKER && honoured.is_open {
                honoured.close(pid, targets);
                self.warnings.push(format!(
                    "the traceback hook of process {pid} left {BREAKER} questions in a row without an answer: it is \
                     not called any more"
                ));
            }
        }
    }

    /// Asks nobody any more. Sampling has to go on until this has been called, and to end after it.
    pub fn stop(&self, targets: &mut Targets) {
        for &pid in self.processes.keys() {
            targets.ask(pid, 0, 0);
        }
    }

    /// Waits for the answers that are still under way, gives back all samples, and takes the helper out of every
    /// process. `all_came` says that no sample was lost: only then it is known how often each process was asked.
    pub fn leave(
        &mut self,
        targets: &mut Targets,
        all_came: bool,
        mut each: impl FnMut(&Targets, Vec<u8>, Option<Answer>),
    ) {
        let begun = Instant::now();
        let is_under_way = |hooks: &Self| {
            hooks
                .processes
                .values()
                .any(|honoured| honoured.installed.entered() < honoured.asked)
        };
        while is_under_way(self) && begun.elapsed() < PATIENCE {
            self.fetch(targets, &mut each);
            std::thread::sleep(Duration::from_millis(1));
        }
        self.fetch(targets, &mut each);
        for (pid, mut honoured) in std::mem::take(&mut self.processes) {
            honoured.join.close();
            honoured.pass_on(targets, &mut each);
            add(&mut self.counts, honoured.join.counts());
            let sent = all_came.then_some(honoured.asked);
            match honoured.installed.leave(sent) {
                Ok(left) => self.warnings.extend(residue(pid, &left)),
                Err(inject::Error::Gone { .. }) => {}
                Err(error) => self.warnings.push(format!(
                    "the helper is still in process {pid}, where it does nothing; the next recording removes it: {}",
                    explain(&error)
                )),
            }
        }
    }

    /// What became of samples and answers, once everything is over; `None` if no hooks were honoured.
    pub fn answers(&self, sampled: &sampler::AskedCounts) -> Option<HookAnswers> {
        self.were_engaged.then(|| HookAnswers {
            used: self.counts.used,
            unanswered: self.counts.unanswered,
            refused: vec![
                ("the answer came too late", self.counts.late),
                ("the answer was for no sample", self.counts.no_sample),
                ("the answer was for another instruction", self.counts.mismatch),
            ],
            not_asked: sampled
                .not_asked
                .iter()
                .map(|(reason, n)| (reason.sentence(), *n))
                .collect(),
        })
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        // A recording that failed. What cannot be taken out now does nothing, and the next recording removes it.
        for (_, honoured) in self.processes.drain() {
            let _ = honoured.installed.leave(None);
        }
    }
}

impl Honoured {
    fn close(&mut self, pid: u32, targets: &mut Targets) {
        targets.ask(pid, 0, 0);
        self.installed.enable(false);
        self.is_open = false;
    }

    fn pass_on(&mut self, targets: &Targets, each: &mut impl FnMut(&Targets, Vec<u8>, Option<Answer>)) {
        while let Some((sample, answer)) = self.join.next_ready() {
            self.unanswered = if answer.is_some() { 0 } else { self.unanswered + 1 };
            each(targets, sample, answer);
        }
    }
}

/// An answer of the helper, as the protocol has it.
fn understood(answer: &inject::Answer) -> Answer {
    let list = |pcs: &[Avma]| PcList {
        pcs: pcs.iter().map(|pc| pc.0).collect(),
        full: pcs.len() == MAX_PCS,
    };
    Answer {
        thread: answer.thread_pointer,
        pc: answer.pc.0,
        cookie: answer.cookie,
        leaf: answer.leaf.as_deref().map(list).unwrap_or_default(),
        contexts: answer
            .contexts
            .iter()
            .map(|context| (context.context, list(&context.pcs)))
            .collect(),
    }
}

/// What stays in a process, for people.
fn residue(pid: u32, left: &inject::Left) -> Option<String> {
    match (left.disposition, left.mapping) {
        (Disposition::Restored | Disposition::Theirs, Mapping::Unmapped) => None,
        (Disposition::StillPending, _) => Some(format!(
            "signals of ours are still pending in process {pid}, so their handler stays, and does nothing"
        )),
        (_, Mapping::Kept) => Some(format!(
            "the helper stays in the memory of process {pid}, and does nothing: a thread may still be in it"
        )),
    }
}

fn add(all: &mut Counts, more: Counts) {
    all.used += more.used;
    all.late += more.late;
    all.no_sample += more.no_sample;
    all.mismatch += more.mismatch;
    all.unanswered += more.unanswered;
}

/// `CLOCK_MONOTONIC`, as samples have it.
fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
