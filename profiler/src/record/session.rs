//! The recording itself: feeds the BPF side with tables, takes what it sends.

use super::collect::Collected;
use super::images::{Content, Image, Loaded, Mapped, ModuleIdx, Modules, bias, mapping};
use super::loader::{Done, Job, Loader};
use super::{Error, facts, finish};
use crate::observe::Observer;
use crate::profile::{Meta, Profile, Summary};
use crate::sampler::{self, Record, Sampler, Tables, parse};
use crate::target::go::TlsG;
use crate::target::maps::MapEntry;
use crate::target::process::{self, Process};
use profiler_abi::go::GoLayout;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// How often samples are fetched when nothing more urgent happens.
const TICK: Duration = Duration::from_millis(100);

/// How long a process is left alone after its mappings were read: a walk that meets an address in no mapping asks
/// for them, and one that does so again and again would keep us busy.
const RESCAN_PAUSE: Duration = Duration::from_millis(20);

/// What to record.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How to sample.
    pub sampling: sampler::Options,
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
    tables: Tables,
    loader: Loader,
    modules: Modules,
    /// Modules whose objects are being read, by the job that does.
    pending: HashMap<(u32, MapEntry), ModuleIdx>,
    images: HashMap<u32, Image>,
    processes: HashMap<u32, Watched>,
    collected: Collected,
    /// Processes whose mappings have to be read again.
    rescan: HashSet<u32>,
    program: String,
    asked_for: Vec<u32>,
    warnings: Vec<String>,
    begun: (SystemTime, Instant),
    duration: Duration,
}

/// A watched process.
#[derive(Debug)]
struct Watched {
    /// The process; `None` if it had ended before we could open it.
    process: Option<Process>,
    slot: u32,
    scanned: Option<Instant>,
    ended: bool,
    /// What it had spent on a CPU before samples were taken, in nanoseconds.
    on_cpu_before: Option<u64>,
}

impl Session {
    /// Loads everything that is needed to sample; watches nothing yet.
    ///
    /// # Errors
    /// The kernel lacks something or forbids it.
    pub fn new(options: Options) -> Result<Self, Error> {
        let (sampler, tables) = Sampler::load(options.sampling)?;
        Ok(Self {
            options,
            sampler,
            tables,
            loader: Loader::start().map_err(Error::Wait)?,
            modules: Modules::default(),
            pending: HashMap::new(),
            images: HashMap::new(),
            processes: HashMap::new(),
            collected: Collected::default(),
            rescan: HashSet::new(),
            program: String::new(),
            asked_for: Vec::new(),
            warnings: Vec::new(),
            begun: (SystemTime::now(), Instant::now()),
            duration: Duration::ZERO,
        })
    }

    /// Watches a process. Its tables are complete when this returns.
    ///
    /// # Errors
    /// The process cannot be looked at, or a table is full.
    pub async fn watch(&mut self, process: Process) -> Result<(), Error> {
        let pid = process.pid;
        if self.program.is_empty() {
            self.program = process.name();
        }
        self.asked_for.push(pid);
        self.new_image(pid, Some(process))?;
        while self.loader.is_busy() {
            let done = self.loader.next().await;
            self.loaded(done)?;
        }
        Ok(())
    }

    /// Starts to sample.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn start(&mut self) -> Result<(), Error> {
        self.sampler.follow()?;
        self.sampler.start()?;
        for watched in self.processes.values_mut() {
            watched.on_cpu_before = watched.process.as_ref().and_then(Process::on_cpu_ns);
        }
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
        let ring = self.sampler.readiness().map_err(Error::Wait)?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        observer.started();
        let ended = loop {
            tokio::select! {
                biased;
                () = &mut stop => break Ended::Stopped,
                ready = ring.readable() => ready.map_err(Error::Wait)?.clear_ready(),
                done = self.loader.next() => self.loaded(done)?,
                _ = tick.tick() => {
                    self.notice_ends();
                    if !self.processes.is_empty() && self.processes.values().all(|watched| watched.ended) {
                        break Ended::TargetsGone;
                    }
                    let counts = self.sampler.counts()?;
                    let lost = counts.lost_ring_full + counts.lost_ticks;
                    observer.progress(self.begun.1.elapsed(), counts.taken, lost);
                }
            }
            self.drain()?;
            self.rescan_due()?;
            for warning in self.warnings.drain(..) {
                observer.warning(&warning);
            }
        };
        self.duration = self.begun.1.elapsed();
        self.sampler.stop();
        self.drain()?;
        Ok(ended)
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
            ..Summary::default()
        };
        let mut facts = facts::of_host();
        facts.extend(self.go_versions());
        let meta = Meta {
            program: self.program,
            pids: self.asked_for,
            start: self.begun.0,
            duration: self.duration,
            frequency_hz: self.options.sampling.frequency_hz,
            facts,
        };
        Ok(finish::profile(&self.collected, &self.modules, meta, summary))
    }

    /// Time that the watched processes have spent on a CPU since samples are taken, in nanoseconds, as far as they
    /// still exist.
    pub fn on_cpu_ns(&self) -> u64 {
        let each = self.processes.values().filter_map(|watched| {
            let now = watched.process.as_ref()?.on_cpu_ns()?;
            Some(now.saturating_sub(watched.on_cpu_before?))
        });
        each.sum()
    }

    fn drain(&mut self) -> Result<(), Error> {
        let (mut forks, mut execs) = (Vec::new(), Vec::new());
        while let Some(bytes) = self.sampler.next_record() {
            match parse(&bytes) {
                Some(Record::Sample(sample)) => {
                    self.collected.add(&sample, self.images.get(&sample.header.slot));
                }
                Some(Record::Remap { tgid }) => {
                    self.rescan.insert(tgid);
                }
                Some(Record::Fork { tgid, parent }) => forks.push((tgid, parent)),
                Some(Record::Exec { tgid }) => execs.push(tgid),
                None => {}
            }
        }
        for (child, parent) in forks {
            self.forked(child, parent);
        }
        for pid in execs {
            self.execed(pid)?;
        }
        Ok(())
    }

    fn forked(&mut self, child: u32, parent: u32) {
        let Some(slot) = self.processes.get(&parent).map(|parent| parent.slot) else {
            return;
        };
        let process = Process::open(child).ok();
        let ended = process.is_none();
        self.processes.insert(
            child,
            Watched {
                process,
                slot,
                scanned: Some(Instant::now()),
                ended,
                on_cpu_before: Some(0),
            },
        );
    }

    fn execed(&mut self, pid: u32) -> Result<(), Error> {
        match Process::open(pid) {
            Ok(process) => self.new_image(pid, Some(process)),
            // It has ended already; its few samples say so themselves.
            Err(_) => {
                if let Some(watched) = self.processes.get_mut(&pid) {
                    watched.ended = true;
                }
                Ok(())
            }
        }
    }

    fn new_image(&mut self, pid: u32, process: Option<Process>) -> Result<(), Error> {
        let slot = self.tables.new_slot(GoLayout::default())?;
        let index = slot.index;
        let on_cpu_before = self.processes.get(&pid).and_then(|watched| watched.on_cpu_before);
        self.tables.watch(pid, &slot)?;
        self.images.insert(index, Image::new(slot, pid));
        self.processes.insert(
            pid,
            Watched {
                process,
                slot: index,
                scanned: None,
                ended: false,
                on_cpu_before,
            },
        );
        self.scan(pid)
    }

    fn rescan_due(&mut self) -> Result<(), Error> {
        let due: Vec<u32> = self
            .rescan
            .iter()
            .copied()
            .filter(|pid| {
                let scanned = self.processes.get(pid).and_then(|watched| watched.scanned);
                scanned.is_none_or(|at| at.elapsed() >= RESCAN_PAUSE)
            })
            .collect();
        for pid in due {
            self.rescan.remove(&pid);
            self.scan(pid)?;
        }
        Ok(())
    }

    /// Reads the mappings of a process and brings the tables of its image up to date.
    fn scan(&mut self, pid: u32) -> Result<(), Error> {
        let Some(watched) = self.processes.get_mut(&pid) else {
            return Ok(());
        };
        watched.scanned = Some(Instant::now());
        let slot = watched.slot;
        let Some(process) = &watched.process else {
            return Ok(());
        };
        let mut entries = match process.maps() {
            Ok(entries) => entries,
            // It is ending; `notice_ends` will see that.
            Err(process::Error::Gone { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        entries.retain(|entry| entry.executable);
        if self
            .images
            .get(&slot)
            .is_none_or(|image| image.entries == entries)
        {
            return Ok(());
        }
        for entry in &entries {
            let at = self.modules.intern(pid, entry);
            let known = matches!(
                self.modules.get(at).content,
                Content::Object(..) | Content::Bare(_)
            );
            if !known && self.pending.insert((pid, entry.clone()), at).is_none() {
                self.request(pid, entry, at);
            }
        }
        if let Some(image) = self.images.get_mut(&slot) {
            image.entries = entries;
        }
        self.publish(slot)
    }

    /// Asks for the object of a new module, unless another module has it already.
    fn request(&mut self, pid: u32, entry: &MapEntry, at: ModuleIdx) {
        let twin = self.modules.iter().find_map(|(_, module)| match &module.content {
            Content::Object(loaded, _) if entry.is_file() && module.entry.file == entry.file => {
                Some(Arc::clone(loaded))
            }
            _ => None,
        });
        if let Some(loaded) = twin {
            self.pending.remove(&(pid, entry.clone()));
            let content = place(loaded, entry);
            self.modules.set(at, content);
            return;
        }
        self.loader.request(Job {
            pid,
            entry: entry.clone(),
        });
    }

    fn loaded(&mut self, done: Done) -> Result<(), Error> {
        let Done {
            job,
            object,
            ext_rules,
        } = done;
        self.tables.add_ext_rules(&ext_rules)?;
        let Some(at) = self.pending.remove(&(job.pid, job.entry.clone())) else {
            return Ok(());
        };
        let content = match object {
            Ok(object) => {
                for problem in &object.problems {
                    self.warnings.push(format!("{}: {problem}", job.entry.name));
                }
                let table = self.tables.add_object(object.n_regions, &object.regions)?;
                place(
                    Arc::new(Loaded {
                        object: Mutex::new(*object),
                        table,
                    }),
                    &job.entry,
                )
            }
            Err(reason) => Content::Bare(reason),
        };
        self.modules.set(at, content);
        let slots: Vec<u32> = self
            .images
            .iter()
            .filter(|(_, image)| image.entries.contains(&job.entry))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in slots {
            self.publish(slot)?;
        }
        Ok(())
    }

    /// Makes the mappings of an image, as far as they are known, those that walks use from now on.
    fn publish(&mut self, slot: u32) -> Result<(), Error> {
        let Some(image) = self.images.get_mut(&slot) else {
            return Ok(());
        };
        let mut mapped = Vec::with_capacity(image.entries.len());
        let mut mappings = Vec::with_capacity(image.entries.len());
        let mut go = None;
        for entry in &image.entries {
            let at = self.modules.intern(image.pid, entry);
            let content = &self.modules.get(at).content;
            if go.is_none() {
                go = go_layout(image.pid, content);
            }
            mappings.push(mapping(entry, content));
            mapped.push(Mapped {
                start: entry.start,
                end: entry.end,
                module: at,
            });
        }
        if let Some(go) = go {
            self.tables.set_go(&image.slot, go);
        }
        let generation = self.tables.publish(&mut image.slot, &mappings)?;
        image.add_generation(generation, mapped.into());
        Ok(())
    }

    /// Stops watching processes that have ended.
    fn notice_ends(&mut self) {
        for (pid, watched) in &mut self.processes {
            if let Some(process) = &watched.process
                && !watched.ended
                && has_ended(process)
            {
                watched.ended = true;
                self.tables.unwatch(*pid);
            }
        }
    }

    fn go_versions(&self) -> Option<(String, String)> {
        self.modules.iter().find_map(|(_, module)| {
            let Content::Object(loaded, _) = &module.content else {
                return None;
            };
            let object = loaded.object.lock().ok()?;
            let go = object.go.as_ref()?;
            Some(("go".to_owned(), go.version.as_ref()?.to_string()))
        })
    }
}

/// A module with an object, loaded where `entry` has it.
fn place(loaded: Arc<Loaded>, entry: &MapEntry) -> Content {
    let svma = loaded.object.lock().ok().and_then(|object| {
        // The vDSO is an image in memory: the kernel maps its one segment from the start.
        object
            .symbols
            .svma_of_offset(if entry.is_file() { entry.offset } else { 0 })
    });
    match svma {
        Some(svma) => Content::Object(loaded, bias(entry, svma)),
        None => Content::Bare("the mapping is of no segment of the file".into()),
    }
}

/// What the walk has to know of the Go runtime in a module, if there is one.
fn go_layout(pid: u32, content: &Content) -> Option<GoLayout> {
    let Content::Object(loaded, bias) = content else {
        return None;
    };
    let object = loaded.object.lock().ok()?;
    let go = object.go.as_ref()?;
    let tls_g = match go.tls {
        TlsG::Fixed(offset) => offset,
        TlsG::GotSlot(slot) => {
            let bytes = Process::open(pid).ok()?.memory(slot.to_avma(*bias).0, 8).ok()?;
            i64::from_le_bytes(*bytes.first_chunk()?)
        }
    };
    Some(go.abi(*bias, tls_g))
}

fn has_ended(process: &Process) -> bool {
    let mut fds = [PollFd::new(&process.pidfd, PollFlags::IN)];
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .is_ok_and(|ready| ready > 0)
}
