//! Honouring the traceback hooks of watched processes: the helper goes in, samples wait for its answers, it leaves.

use super::breaker::{Breaker, Misdeed, Seen};
use super::targets::Targets;
use crate::addr::Avma;
use crate::explain::explain;
use crate::hooks::answer::{MAX_PCS, PcList};
use crate::hooks::join::{Asked, Counts};
use crate::hooks::{Answer, Join};
use crate::inject::{self, Disposition, Inside, Installed, Mapped, Mapping, Plan};
use crate::profile::HookAnswers;
use crate::sampler::{self, Question, RawSample};
use crate::target::process::Process;
use profiler_abi::sample::Header;
use std::collections::{HashMap, HashSet};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many threads of a process may be asked in a tenth of a second: fewer than fit into the helper's memory between
/// two times that answers are fetched.
const PER_WINDOW: u32 = 1000;

/// How many threads of a process are remembered.
const MAX_THREADS: usize = 4096;

/// How often programs that have registered no hook are looked at again.
const LOOK: Duration = Duration::from_secs(1);

/// How long answers that are still under way are waited for at the end.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether traceback hooks are honoured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// No: nothing in a process is touched.
    Off,
    /// Where it is possible; elsewhere stacks are as walked, and the run says why.
    #[default]
    Auto,
    /// Yes: where it is not possible, there is no recording.
    Require,
}

/// The processes whose hooks are honoured.
#[derive(Default)]
pub struct Hooks {
    processes: HashMap<u32, Honoured>,
    /// Those that had registered no traceback function when they were last looked at, which was then.
    waiting: HashSet<u32>,
    looked: Option<Instant>,
    /// Those that the helper is being put into.
    engaging: HashMap<u32, JoinHandle<Result<Installed, inject::Error>>>,
    counts: Counts,
    /// Signals that found no room for their answer, as we did not fetch in time.
    without_room: u64,
    longest_stop: Duration,
    were_engaged: bool,
    /// What there is to tell the user, since it was last taken.
    pub warnings: Vec<String>,
}

/// A process with the helper in it.
struct Honoured {
    process: Process,
    installed: Installed,
    join: Join<Vec<u8>>,
    /// Threads that were asked, as far as their samples have come.
    asked: u64,
    breaker: Breaker,
    /// Samples without an answer that the hook is not to blame for: there was no room for the answer.
    excused: u64,
    /// Threads by their thread pointers, as far as they have been asked.
    threads: HashMap<u64, u32>,
}

impl Hooks {
    /// Puts the helper into process `pid`. False if the program has registered no traceback function.
    ///
    /// # Errors
    /// Its hooks cannot be honoured, for this reason.
    pub fn engage(&mut self, targets: &Targets, pid: u32) -> Result<bool, String> {
        let engaged = self.try_engage(targets, pid);
        // Of a process that is gone nothing can be read, and whatever that looks like, this is why.
        if engaged != Ok(true) && Process::open(pid).is_err() {
            return Err("it has ended".to_owned());
        }
        engaged
    }

    fn try_engage(&mut self, targets: &Targets, pid: u32) -> Result<bool, String> {
        let Some((process, plan)) = registered(targets, pid)? else {
            return Ok(false);
        };
        let installed = install(process, plan).map_err(|error| explain(&error))?;
        self.honour(pid, installed).map(|()| true)
    }

    /// Process `pid` may register a traceback function later.
    pub fn wait_for(&mut self, pid: u32) {
        self.waiting.insert(pid);
    }

    /// Called every now and then: looks whether programs have registered a traceback function meanwhile, and puts the
    /// helper into them, on a thread of its own.
    pub fn tick(&mut self, targets: &mut Targets) {
        if !self.waiting.is_empty() && self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            for pid in std::mem::take(&mut self.waiting) {
                match registered(targets, pid) {
                    Ok(None) => _ = self.waiting.insert(pid),
                    Ok(Some((process, plan))) => {
                        let engaging = std::thread::spawn(|| install(process, plan));
                        self.engaging.insert(pid, engaging);
                    }
                    Err(reason) => self.warnings.push(refusal(pid, &reason)),
                }
            }
        }
        for pid in self.engaged(JoinHandle::is_finished) {
            self.warnings.push(format!(
                "process {pid} has registered a traceback function: its hooks are honoured from now on"
            ));
            if let Some(honoured) = self.processes.get(&pid) {
                honoured.ask(pid, targets);
            }
        }
    }

    /// Takes over the processes that the helper has come into.
    fn engaged(
        &mut self,
        is_taken: impl Fn(&JoinHandle<Result<Installed, inject::Error>>) -> bool,
    ) -> Vec<u32> {
        let mut engaged = Vec::new();
        for (pid, engaging) in self
            .engaging
            .extract_if(|_, engaging| is_taken(engaging))
            .collect::<Vec<_>>()
        {
            let installed = match engaging.join() {
                Ok(Ok(installed)) => installed,
                Ok(Err(inject::Error::Gone { .. })) => continue,
                Ok(Err(error)) => {
                    self.warnings.push(refusal(pid, &explain(&error)));
                    continue;
                }
                Err(panic) => std::panic::resume_unwind(panic),
            };
            match self.honour(pid, installed) {
                Ok(()) => engaged.push(pid),
                Err(reason) => self.warnings.push(refusal(pid, &reason)),
            }
        }
        engaged
    }

    fn honour(&mut self, pid: u32, installed: Installed) -> Result<(), String> {
        let process = match Process::open(pid) {
            Ok(process) => process,
            Err(error) => {
                let _ = installed.leave(Some(0));
                return Err(error.to_string());
            }
        };
        installed.enable(true);
        self.were_engaged = true;
        self.longest_stop = self.longest_stop.max(installed.longest_stop());
        let honoured = Honoured {
            process,
            installed,
            join: Join::default(),
            asked: 0,
            breaker: Breaker::default(),
            excused: 0,
            threads: HashMap::new(),
        };
        self.processes.insert(pid, honoured);
        Ok(())
    }

    /// Process `pid` has executed another program: the helper and whatever was in it are gone. Its samples are given back.
    pub fn execed(
        &mut self,
        pid: u32,
        targets: &Targets,
        mut each: impl FnMut(&Targets, Vec<u8>, Option<Answer>),
    ) {
        let Some(mut honoured) = self.processes.remove(&pid) else {
            return;
        };
        honoured.join.close();
        honoured.pass_on(targets, &mut each);
        add(&mut self.counts, honoured.join.counts());
        self.without_room += honoured.installed.without_room();
        self.waiting.insert(pid);
    }

    /// The processes that are honoured.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.keys().copied()
    }

    /// Whether any process is honoured.
    pub fn is_engaged(&self) -> bool {
        !self.processes.is_empty()
    }

    /// From now on sampled threads are asked.
    pub fn start(&self, targets: &mut Targets) {
        for (&pid, honoured) in &self.processes {
            honoured.ask(pid, targets);
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
        if honoured.threads.len() >= MAX_THREADS {
            honoured.threads.clear();
        }
        honoured.threads.insert(header.cookie, header.tid);
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

    /// Fetches the answers that have come, and gives back each sample that waits no more. Sees to it that no hook is called
    /// which does what it must not.
    pub fn fetch(&mut self, targets: &mut Targets, mut each: impl FnMut(&Targets, Vec<u8>, Option<Answer>)) {
        let now = now_ns();
        for (&pid, honoured) in &mut self.processes {
            let mut misdeed = None;
            for answer in honoured.installed.answers() {
                if answer.is_overrun {
                    misdeed = Some(Misdeed::Overrun);
                }
                honoured.join.answer(understood(&answer), now);
            }
            honoured.join.advance(now);
            if honoured.pass_on(targets, &mut each) {
                misdeed = misdeed.or(Some(Misdeed::Silent));
            }
            let (slow, stuck) = honoured.look_inside(now);
            if let Some(misdeed) = slow.or(misdeed)
                && honoured.breaker.open()
            {
                targets.ask(pid, None);
                self.warnings.push(misdeed.sentence(pid));
            }
            if !stuck.is_empty() {
                self.warnings.extend(honoured.rescue(pid, &stuck));
            }
            if honoured.breaker.is_open() {
                honoured.installed.enable(false);
            }
        }
    }

    /// Asks nobody any more. Sampling has to go on until this has been called, and to end after it.
    pub fn stop(&self, targets: &mut Targets) {
        for &pid in self.processes.keys() {
            targets.ask(pid, None);
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
        self.engaged(|_| true);
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
            self.without_room += honoured.installed.without_room();
            let sent = all_came.then_some(honoured.asked);
            match honoured.installed.leave(sent) {
                Ok(left) => {
                    self.longest_stop = self.longest_stop.max(left.longest_stop);
                    self.warnings.extend(rescue_sentence(pid, left.rescued));
                    self.warnings.extend(residue(pid, &left));
                }
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
            longest_stop: self.longest_stop,
            refused: vec![
                ("the answer came too late", self.counts.late),
                ("the answer was for no sample", self.counts.no_sample),
                ("the answer was for another instruction", self.counts.mismatch),
                ("there was no room for the answer", self.without_room),
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
        self.engaged(|_| true);
        for (_, honoured) in self.processes.drain() {
            let _ = honoured.installed.leave(None);
        }
    }
}

impl Honoured {
    /// From now on its threads are asked.
    fn ask(&self, pid: u32, targets: &mut Targets) {
        let question = Question {
            signal: self.installed.signal(),
            handler: self.installed.handler(),
            per_window: PER_WINDOW,
            filters: self.installed.filters(),
        };
        // Walks will meet the handler, which has been mapped since the process was looked at.
        targets.remap(pid);
        targets.ask(pid, Some(&question));
    }

    /// What the calls of the hook that have not come back are guilty of, and those of them that are stuck.
    fn look_inside(&mut self, now_ns: u64) -> (Option<Misdeed>, Vec<Inside>) {
        let inside = self.installed.inside();
        let look = |inside: &Inside| {
            let tid = self.threads.get(&inside.thread).copied();
            let status = tid.and_then(|tid| self.process.status(tid));
            Seen {
                visit: inside.visit,
                on_cpu_ns: tid.and_then(|tid| self.process.thread_on_cpu_ns(tid)),
                is_asleep: status.is_some_and(|status| status.is_asleep()),
            }
        };
        let seen: Vec<Seen> = inside.iter().map(look).collect();
        let (misdeed, stuck) = self.breaker.inside(now_ns, &seen);
        let is_stuck = |inside: &Inside| stuck.contains(&inside.visit);
        (misdeed, inside.into_iter().filter(is_stuck).collect())
    }

    /// Takes threads out of the hook. Returns what there is to tell.
    fn rescue(&self, pid: u32, stuck: &[Inside]) -> Vec<String> {
        self.installed.enable(false);
        let (mut rescued, mut said) = (0, Vec::new());
        for &inside in stuck {
            match self.installed.rescue(inside) {
                Ok(is_out) => rescued += u32::from(is_out),
                Err(error) => said.push(format!(
                    "a thread of process {pid} is still in its traceback hook: {}",
                    explain(&error)
                )),
            }
        }
        said.extend(rescue_sentence(pid, rescued));
        said
    }

    /// Passes on the samples that wait no more. True if too many of them had no answer.
    fn pass_on(
        &mut self,
        targets: &Targets,
        each: &mut impl FnMut(&Targets, Vec<u8>, Option<Answer>),
    ) -> bool {
        self.breaker.without_room(self.installed.without_room());
        let mut is_silent = false;
        while let Some((sample, answer)) = self.join.next_ready() {
            let is_excused = answer.is_none() && self.excused < self.installed.without_room();
            self.excused += u64::from(is_excused);
            is_silent |= self.breaker.sample(answer.is_some() || is_excused);
            each(targets, sample, answer);
        }
        is_silent
    }
}

/// Process `pid` and what honouring its hooks takes, if it has registered a traceback function.
fn registered(targets: &Targets, pid: u32) -> Result<Option<(Process, Plan)>, String> {
    let Some(plan) = targets.plan(pid)? else {
        return Ok(None);
    };
    let Ok(process) = Process::open(pid) else {
        // It has ended.
        return Ok(None);
    };
    let pointer = process
        .memory(plan.traceback.0, 8)
        .map_err(|error| error.to_string())?;
    Ok(pointer.iter().any(|&byte| byte != 0).then_some((process, plan)))
}

fn install(process: Process, plan: Plan) -> Result<Installed, inject::Error> {
    Mapped::new(process, plan).and_then(Mapped::install)
}

/// What to tell of threads that did not come back from a hook.
fn rescue_sentence(pid: u32, rescued: u32) -> Option<String> {
    (rescued > 0).then(|| {
        format!(
            "the traceback hook of process {pid} did not come back on {rescued} of its threads, which were taken out of it \
             and go on where they had been interrupted; a lock that the hook holds stays locked"
        )
    })
}

fn refusal(pid: u32, reason: &str) -> String {
    format!("the traceback hooks of process {pid} are not honoured: {reason}")
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
