//! The recording itself: takes what the BPF side sends.

use super::collect::Collected;
use super::fetching::Fetching;
use super::hooks::{Hooks, Mode as HookMode};
use super::naming::Naming;
use super::targets::Targets;
use super::{Error, facts, finish};
use crate::debuginfo::debuginfod;
use crate::hooks::Answer;
use crate::observe::Observer;
use crate::profile::{Measure, Meta, OffCpu, Profile, Roots, Summary};
use crate::sampler::{self, Counts, Event, Record, Sampler, parse};
use crate::target::process::Process;
use profiler_abi::sample::Header;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

/// How often samples are fetched when nothing more urgent happens.
const TICK: Duration = Duration::from_millis(100);

/// How often answers of hooks are fetched.
const FETCH: Duration = Duration::from_millis(5);

/// What to record.
#[derive(Clone, Debug)]
pub struct Options {
    /// How to sample.
    pub sampling: sampler::Options,
    /// Whether the traceback hooks of programs are honoured.
    pub hooks: HookMode,
    /// What stands outside of stacks.
    pub roots: Roots,
    /// What the recording is called; the name of the first process that is watched if it is empty.
    pub title: String,
    /// Servers that are asked for debug files; `None` for nobody.
    pub debuginfod: Option<debuginfod::Settings>,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// No target is left.
    TargetsGone,
}

/// A recording.
pub struct Session {
    options: Options,
    sampler: Sampler,
    targets: Targets,
    hooks: Hooks,
    naming: Naming,
    fetching: Fetching,
    collected: Collected,
    program: String,
    asked_for: Vec<u32>,
    begun: (SystemTime, Instant),
    duration: Duration,
}

impl Session {
    /// Loads everything that is needed to sample; watches nothing yet.
    ///
    /// # Errors
    /// The kernel lacks something or forbids it.
    pub fn new(options: Options) -> Result<Self, Error> {
        let (sampler, tables) = Sampler::load(options.sampling)?;
        let fetching = Fetching::start(options.debuginfod.clone()).map_err(Error::Wait)?;
        Ok(Self {
            program: options.title.clone(),
            fetching,
            sampler,
            targets: Targets::new(tables, options.sampling.scope).map_err(Error::Wait)?,
            hooks: Hooks::default(),
            naming: Naming::default(),
            collected: Collected::new(measure(&options.sampling)),
            asked_for: Vec::new(),
            begun: (SystemTime::now(), Instant::now()),
            duration: Duration::ZERO,
            options,
        })
    }

    /// Watches a process. Its tables are complete when this returns.
    ///
    /// # Errors
    /// The process cannot be looked at or is none for x86-64, or a table is full.
    pub async fn watch(&mut self, process: Process) -> Result<(), Error> {
        process.check_machine()?;
        let pid = process.pid;
        if self.program.is_empty() {
            self.program = process.name();
        }
        self.asked_for.push(pid);
        self.targets.watch(process).await?;
        if self.engage(pid)? {
            // The helper's code is new there.
            self.targets.look_again(pid).await?;
        }
        Ok(())
    }

    /// Watches those of the processes that can be watched before a sample meets them, so that their first ones have whole
    /// stacks already. Their tables are made while samples are taken. Does nothing if hooks are honoured: a process that
    /// does not run shall not be asked for its own.
    pub fn expect(&mut self, pids: &[u32]) {
        if self.options.hooks == HookMode::Off {
            pids.iter().for_each(|&pid| self.targets.met(pid));
        }
    }

    /// Honours the hooks of a process, if that is wanted. Whether they are honoured from now on.
    fn engage(&mut self, pid: u32) -> Result<bool, Error> {
        if self.options.hooks == HookMode::Off {
            return Ok(false);
        }
        let reason = match self.hooks.engage(&self.targets, pid) {
            Ok(true) => {
                self.watch_names();
                return Ok(true);
            }
            Ok(false) => {
                self.hooks.wait_for(pid);
                if self.options.hooks == HookMode::Auto {
                    return Ok(false);
                }
                "it has registered no traceback function".to_owned()
            }
            Err(reason) => reason,
        };
        if self.options.hooks == HookMode::Require {
            return Err(Error::Hooks { pid, reason });
        }
        self.hooks.warnings.push(format!(
            "the traceback hooks of process {pid} are not honoured: {reason}"
        ));
        Ok(false)
    }

    /// What the hooks of a process give is to be named, from the moment that they are honoured.
    fn watch_names(&mut self) {
        for pid in self.hooks.pids() {
            if self.naming.program(pid).is_none()
                && let Ok(Some(plan)) = self.targets.plan(pid)
            {
                self.naming.watch(pid, plan);
            }
        }
    }

    /// Starts to sample.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn start(&mut self) -> Result<(), Error> {
        self.sampler.follow()?;
        self.hooks.start(&mut self.targets);
        self.sampler.start()?;
        self.targets.begin();
        self.naming.begin();
        self.begun = (SystemTime::now(), Instant::now());
        Ok(())
    }

    /// Records until `stop` is ready or every target has ended.
    ///
    /// # Errors
    /// Waiting failed or a table is full. What was recorded so far is kept: [`Session::finish`] gives it.
    pub async fn run(
        &mut self,
        stop: impl Future<Output = ()>,
        observer: &mut dyn Observer,
    ) -> Result<Ended, Error> {
        let outcome = self.take_samples(stop, observer).await;
        self.duration = self.begun.1.elapsed();
        self.sampler.stop();
        self.hooks.stop(&mut self.targets);
        let closed = self.close();
        self.tell(observer);
        outcome.and_then(|ended| closed.map(|()| ended))
    }

    /// Takes samples until `stop` is ready or every target has ended.
    async fn take_samples(
        &mut self,
        stop: impl Future<Output = ()>,
        observer: &mut dyn Observer,
    ) -> Result<Ended, Error> {
        let ring = self.sampler.readiness().map_err(Error::Wait)?;
        let remapped = self.sampler.remapped_readiness().map_err(Error::Wait)?;
        // The helper has room for the answers of a moment only.
        let mut fetch = tokio::time::interval(FETCH);
        fetch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        observer.started();
        Ok(loop {
            tokio::select! {
                biased;
                () = &mut stop => break Ended::Stopped,
                ready = ring.readable() => ready.map_err(Error::Wait)?.clear_ready(),
                ready = remapped.readable() => ready.map_err(Error::Wait)?.clear_ready(),
                _ = fetch.tick(), if self.hooks.is_engaged() => {}
                done = self.targets.next_object() => self.targets.loaded(done),
                _ = tick.tick() => {
                    if !self.targets.tick(|at| self.collected.modules.contains(&at)) {
                        break Ended::TargetsGone;
                    }
                    self.hooks.tick(&mut self.targets);
                    self.watch_names();
                    self.naming.tick(&self.collected);
                    self.fetching.tick(&self.collected, &self.targets.modules);
                    let counts = self.sampler.counts()?;
                    let lost = counts.lost_ring_full + counts.lost_ticks;
                    observer.progress(self.begun.1.elapsed(), counts.taken, lost);
                }
            }
            self.drain();
            self.targets.rescan_due();
            self.tell(observer);
        })
    }

    /// Takes what is left once sampling has ended, and leaves the processes.
    fn close(&mut self) -> Result<(), Error> {
        self.drain();
        let counts = self.sampler.counts()?;
        let all_came = counts.lost_ring_full == 0;
        let (hooks, naming, collected) = (&mut self.hooks, &self.naming, &mut self.collected);
        hooks.leave(&mut self.targets, all_came, |targets, bytes, answer| {
            add_joined(collected, targets, naming, &bytes, answer.as_ref());
        });
        self.fetching.tick(&self.collected, &self.targets.modules);
        self.naming.finish(&self.collected);
        Ok(())
    }

    /// Whether debug files are still being fetched. [`Session::finish`] does without those that are not there yet.
    pub fn is_fetching(&self) -> bool {
        self.fetching.is_busy()
    }

    /// Waits until debug files have been fetched, each for as long as the servers' limits allow.
    pub async fn fetched(&mut self) {
        self.fetching.finish().await;
    }

    /// Gives names to what was collected.
    ///
    /// # Errors
    /// The counts of what was lost cannot be read.
    pub fn finish(self) -> Result<Profile, Error> {
        let counts = self.sampler.counts()?;
        let summary = Summary {
            kept: self.collected.total,
            lost_ring_full: counts.lost_ring_full,
            lost_ticks: counts.lost_ticks,
            withheld_ticks: counts.withheld_ticks,
            hooks: self.hooks.answers(&self.sampler.asked()?),
            hook_names: self.naming.account(),
            labels_cut: self.collected.labels_cut,
            off_cpu: off_cpu(&self.options.sampling, &counts),
            ..Summary::default()
        };
        let mut facts = facts::of_host();
        facts.extend(self.targets.go_version());
        // Names take more memory than anything before, and nobody walks any more.
        let (modules, processes) = self.targets.without_tables();
        let meta = Meta {
            program: self.program,
            pids: self.asked_for,
            start: self.begun.0,
            duration: self.duration,
            frequency_hz: match self.options.sampling.event {
                Event::Tick => self.options.sampling.frequency_hz,
                Event::Block { .. } => 0,
            },
            facts,
            measure: measure(&self.options.sampling),
            roots: self.options.roots,
        };
        Ok(finish::profile(
            &self.collected,
            &modules,
            &self.naming,
            &processes,
            meta,
            summary,
        ))
    }

    /// Time that the watched processes have spent on a CPU since samples are taken, in nanoseconds, as far as they
    /// still exist.
    pub fn on_cpu_ns(&self) -> u64 {
        self.targets.on_cpu_ns()
    }

    /// Passes on what there is to tell.
    fn tell(&mut self, observer: &mut dyn Observer) {
        for warning in self
            .targets
            .warnings
            .drain(..)
            .chain(self.hooks.warnings.drain(..))
        {
            observer.warning(&warning);
        }
    }

    fn drain(&mut self) {
        let mut records = Vec::new();
        while let Some(bytes) = self.sampler.next_record() {
            records.push(bytes.to_vec());
        }
        // After the samples were taken out: what was mapped before one of them is known when it is looked at.
        let remapped = self.sampler.remapped();
        for new in &remapped.new {
            self.targets.new_code(new);
        }
        if remapped.others {
            self.targets.remap_all();
        }
        for snapshot in self.naming.new_snapshots() {
            self.targets.disown(snapshot);
        }
        let (mut forks, mut execs, mut met) = (Vec::new(), Vec::new(), Vec::new());
        for bytes in records {
            match parse(&bytes) {
                Some(Record::Sample(sample)) if self.naming.is_snapshot(sample.header.tgid) => {}
                Some(Record::Sample(sample)) => {
                    let waits =
                        sample.header.flags & Header::ASKED != 0 && self.hooks.sample(&sample, &bytes);
                    if !waits {
                        self.collected
                            .add(&sample, self.targets.image(sample.header.slot));
                    }
                }
                Some(Record::Remap { tgid }) => {
                    self.targets.remap(tgid);
                }
                Some(Record::Fork { tgid, .. }) if self.naming.is_birth_of_snapshot(tgid) => {
                    self.targets.disown(tgid);
                }
                Some(Record::Fork { tgid, parent }) => forks.push((tgid, parent)),
                Some(Record::Exec { tgid }) => execs.push(tgid),
                Some(Record::Met { tgid }) => met.push(tgid),
                None => {}
            }
        }
        let (naming, collected) = (&self.naming, &mut self.collected);
        self.hooks.fetch(&mut self.targets, |targets, bytes, answer| {
            add_joined(collected, targets, naming, &bytes, answer.as_ref());
        });
        for (child, parent) in forks {
            self.targets.forked(child, parent);
        }
        for pid in execs {
            let (naming, collected) = (&self.naming, &mut self.collected);
            self.hooks.execed(pid, &self.targets, |targets, bytes, answer| {
                add_joined(collected, targets, naming, &bytes, answer.as_ref());
            });
            self.naming.replaced(pid);
            self.targets.execed(pid);
        }
        for pid in met {
            self.targets.met(pid);
            if self.options.hooks != HookMode::Off {
                self.hooks.wait_for(pid);
            }
        }
    }
}

/// What the samples of a recording are of.
fn measure(sampling: &sampler::Options) -> Measure {
    match sampling.event {
        Event::Tick => Measure::Cpu,
        Event::Block { .. } => Measure::OffCpu,
    }
}

/// Accounts for the times that threads were off the CPU.
fn off_cpu(sampling: &sampler::Options, counts: &Counts) -> Option<OffCpu> {
    let Event::Block { min, .. } = sampling.event else {
        return None;
    };
    let (short, short_ns) = counts.short_blocks;
    let came_back = short + counts.taken + counts.lost_ring_full;
    Some(OffCpu {
        min,
        blocks: counts.taken,
        short,
        short_time: Duration::from_nanos(short_ns),
        without_room: counts.blocks_without_room,
        still: counts
            .blocks
            .saturating_sub(came_back + counts.blocks_without_room),
    })
}

/// Counts a sample that waited for an answer.
fn add_joined(
    collected: &mut Collected,
    targets: &Targets,
    naming: &Naming,
    bytes: &[u8],
    answer: Option<&Answer>,
) {
    // It was read before.
    let Some(Record::Sample(sample)) = parse(bytes) else {
        return;
    };
    let (slot, generation) = (sample.header.slot, sample.header.generation);
    let image = targets.image(slot);
    match answer {
        Some(answer) => {
            let program = naming.program(sample.header.tgid);
            collected.add_answered(&sample, image, program, answer, |address| {
                targets.code_at(slot, generation, address)
            });
        }
        None => collected.add(&sample, image),
    }
}

#[cfg(test)]
mod tests;
