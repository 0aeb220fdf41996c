//! The BPF side seen from here: loading it, feeding it tables, reading what it sends.

mod btf;
mod drain;
mod kfunc;
mod sideband;
mod space;
mod sys;
mod tables;

pub use btf::Btf;
pub use drain::{RawSample, Record, parse};
pub use sideband::{NewCode, Remapped};
pub use tables::{ObjectTable, Question, Slot, Tables, Usage};

use aya::maps::{MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{PerfEvent, ProgramError, RawTracePoint};
use profiler_abi::table::{Config, Counter};
use sideband::Sideband;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use zerocopy::IntoBytes;

/// The program, built by `cargo xtask bpf` from `profiler-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/profiler.bpf.o");

/// Entries of the table of mappings where processes are listed; where they are not, it has four times as many.
const LISTED_MAPPINGS: u32 = 131_072;

/// The fastest sampling clock that the kernel's software timer gives: it rounds shorter periods up to 10 µs
/// (kernel/events/core.c, `perf_swevent_start_hrtimer`).
pub const MAX_FREQUENCY_HZ: u64 = 100_000;

/// Why samples cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not describe its own types.
    #[error("cannot read the kernel's type information (BTF) from /sys/kernel/btf/vmlinux")]
    Btf(#[source] io::Error),
    /// It does, but not what we need.
    #[error("the kernel's type information (BTF) does not have task_struct.{field}")]
    BtfField {
        /// The field.
        field: &'static str,
    },
    /// The kernel refused the object.
    #[error("cannot load the BPF object")]
    Load(#[source] Box<aya::EbpfError>),
    /// The kernel refused a program.
    #[error("cannot {action} the BPF program {program}")]
    Program {
        /// load or attach
        action: &'static str,
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<ProgramError>,
    },
    /// The kernel's verifier refused a program.
    #[error("the kernel's verifier refused the BPF program {program}; its last words: {log}")]
    Verifier {
        /// Its name.
        program: &'static str,
        /// The end of what the verifier wrote.
        log: String,
        /// What the system call said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused something about a map.
    #[error("cannot use the BPF map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// A map cannot be mapped into our memory.
    #[error("cannot map the BPF map {map} into memory")]
    MapMemory {
        /// Its name.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The set of CPUs is unknown.
    #[error("cannot find out which CPUs there are ({what})")]
    Cpus {
        /// The file.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel does not report new mappings.
    #[error("cannot listen for new mappings of code")]
    Sideband(#[source] io::Error),
    /// A table is full.
    #[error("the table of {what} is full")]
    Full {
        /// What it holds.
        what: &'static str,
    },
    /// The built object does not fit the sources of the program that loads it.
    #[error("the BPF object has no {what}: it was built from other sources; run `cargo xtask bpf`")]
    NotOurs {
        /// The missing part.
        what: &'static str,
    },
}

impl Error {
    fn map(map: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map {
            map,
            source: Box::new(source),
        }
    }
}

/// What to sample.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Samples per second and CPU, 1 to [`MAX_FREQUENCY_HZ`].
    pub frequency_hz: u64,
    /// The most user frames of a sample, 1 to [`profiler_abi::MAX_USER_FRAMES`].
    pub max_frames: u32,
    /// Whether kernel frames are wanted.
    pub kernel_frames: bool,
    /// Whether children of watched processes are watched too.
    pub follow_children: bool,
    /// Whose samples are wanted.
    pub scope: Scope,
    /// When samples are taken.
    pub event: Event,
}

/// Whose samples are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of the processes that are watched.
    Listed,
    /// Of every process. One that is met and is not watched is announced by [`Record::Met`].
    Host,
    /// Of every process in this control group (version 2) or below it, likewise.
    Cgroup {
        /// Its id: the inode of its directory.
        id: u64,
        /// How deep in the tree it is, at least; the root is at 0.
        level: u32,
    },
}

/// When samples are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// On each tick of the sampling clock, of threads that are on a CPU.
    Tick,
    /// Of threads that have left the CPU to wait for something, when they have it again.
    Block {
        /// Those that were off the CPU for less are only counted.
        min: Duration,
        /// For how many threads there is room.
        threads: u32,
    },
}

/// The most threads that there is room for: 8 KiB each.
pub const MAX_BLOCKED_THREADS: u32 = 16384;

/// Samples lost and taken, as the BPF program counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples sent.
    pub taken: u64,
    /// Samples that found no room in the ring buffer.
    pub lost_ring_full: u64,
    /// Ticks of the sampling clock that never came while a watched thread was in a system call.
    pub lost_ticks: u64,
    /// Ticks that never came because the CPU did not run the thread that had it: a hypervisor had taken it, or an
    /// interrupt took long.
    pub withheld_ticks: u64,
    /// Requests (not samples) that found no room.
    pub lost_requests: u64,
    /// Threads that left the CPU to wait for something.
    pub blocks: u64,
    /// Those of them for whose stack there was no room.
    pub blocks_without_room: u64,
    /// Those that came back too soon to be of interest, and how long they were off the CPU in all, in nanoseconds.
    pub short_blocks: (u64, u64),
}

/// Threads asked and not asked what their program's traceback hooks say, as the BPF program counted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedCounts {
    /// Threads that were asked.
    pub asked: u64,
    /// Threads that had C on their stacks and were not asked, by reason.
    pub not_asked: [(NotAsked, u64); NotAsked::ALL.len()],
}

/// Why a thread was not asked what its program's traceback hooks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotAsked {
    /// It is exiting.
    Exiting,
    /// It has the signal blocked.
    Blocked,
    /// The signal waits for it already.
    Pending,
    /// Another signal waits for it, whose handler would be entered first.
    Other,
    /// A frame of its stack is in code that may hold a lock which the hooks need.
    Danger,
    /// There is no room for a handler: on its alternate stack, which it is on already, or on its own.
    NoStack,
    /// Enough were asked in the last moment.
    Rate,
    /// Its process has set another handler for the signal.
    Replaced,
    /// It has other filters of system calls than that one of which they are known.
    Filtered,
    /// The kernel could not send the signal.
    Busy,
}

impl NotAsked {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Exiting,
        Self::Blocked,
        Self::Pending,
        Self::Other,
        Self::Danger,
        Self::NoStack,
        Self::Rate,
        Self::Replaced,
        Self::Filtered,
        Self::Busy,
    ];

    const fn counter(self) -> Counter {
        match self {
            Self::Exiting => Counter::NotAskedExiting,
            Self::Blocked => Counter::NotAskedBlocked,
            Self::Pending => Counter::NotAskedPending,
            Self::Other => Counter::NotAskedOther,
            Self::Danger => Counter::NotAskedDanger,
            Self::NoStack => Counter::NotAskedNoStack,
            Self::Rate => Counter::NotAskedRate,
            Self::Replaced => Counter::NotAskedReplaced,
            Self::Filtered => Counter::NotAskedFiltered,
            Self::Busy => Counter::NotAskedBusy,
        }
    }

    /// What happened, for people; completes "a thread was not asked because …".
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Exiting => "it was exiting",
            Self::Blocked => "it had the signal blocked",
            Self::Pending => "the signal waited for it already",
            Self::Other => "another signal was about to be delivered",
            Self::Danger => "its stack had code that may hold a lock which the hooks need",
            Self::NoStack => {
                "it was on its alternate stack for signals already, or had none and too little room on its own"
            }
            Self::Rate => "enough threads had been asked in the last tenth of a second",
            Self::Replaced => "its process had set another handler for the signal",
            Self::Filtered => "its system calls were filtered otherwise than at the start",
            Self::Busy => "the kernel could not send the signal",
        }
    }
}

/// A loaded sampler. Dropping it detaches and unloads everything: links close with `bpf`.
pub struct Sampler {
    bpf: aya::Ebpf,
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, u64>,
    options: Options,
    sideband: Option<Sideband>,
}

impl Sampler {
    /// Loads the programs. Nothing is sampled before [`Sampler::start`].
    ///
    /// # Errors
    /// What the kernel does not have or does not allow.
    pub fn load(options: Options) -> Result<(Self, Tables), Error> {
        let btf = Btf::of_kernel().map_err(Error::Btf)?;
        Self::load_for(options, &btf, kfunc::send_signal_task(&btf))
    }

    /// Loads them for a kernel with these types, and with this function that sends signals.
    fn load_for(options: Options, btf: &Btf, send_signal_task: Option<u32>) -> Result<(Self, Tables), Error> {
        let field = |path: &[&str], field| {
            btf.field_offset("task_struct", path)
                .ok_or(Error::BtfField { field })
        };
        let ring_bytes = ring_bytes(&options);
        let config = Config {
            task_fsbase: field(&["thread", "fsbase"], "thread.fsbase")?,
            task_tgid: field(&["tgid"], "tgid")?,
            max_frames: options.max_frames,
            kernel_frames: options.kernel_frames.into(),
            follow_children: options.follow_children.into(),
            wakeup_bytes: ring_bytes / 8,
            period_ns: 1_000_000_000 / options.frequency_hz,
            task_flags: field(&["flags"], "flags")?,
            task_blocked: field(&["blocked"], "blocked")?,
            task_pending: field(&["pending", "signal"], "pending.signal")?,
            task_signal: field(&["signal"], "signal")?,
            signal_pending: btf
                .field_offset("signal_struct", &["shared_pending", "signal"])
                .ok_or(Error::BtfField {
                    field: "signal.shared_pending",
                })?,
            task_altstack: field(&["sas_ss_sp"], "sas_ss_sp")?,
            task_altstack_size: field(&["sas_ss_size"], "sas_ss_size")?,
            task_sighand: field(&["sighand"], "sighand")?,
            sighand_action: btf
                .field_offset("sighand_struct", &["action"])
                .ok_or(Error::BtfField {
                    field: "sighand.action",
                })?,
            mapping_start: btf
                .field_offset("vm_area_struct", &["vm_start"])
                .ok_or(Error::BtfField { field: "vm_start" })?,
            task_gave_way: field(&["nvcsw"], "nvcsw")?,
            task_preempted: field(&["nivcsw"], "nivcsw")?,
            scope: match options.scope {
                Scope::Listed => Config::LISTED,
                Scope::Host => Config::HOST,
                Scope::Cgroup { .. } => Config::CGROUP,
            },
            cgroup_level: match options.scope {
                Scope::Cgroup { level, .. } => level,
                Scope::Listed | Scope::Host => 0,
            },
            cgroup_id: match options.scope {
                Scope::Cgroup { id, .. } => id,
                Scope::Listed | Scope::Host => 0,
            },
            min_block_ns: match options.event {
                Event::Tick => 0,
                Event::Block { min, .. } => u64::try_from(min.as_nanos()).unwrap_or(u64::MAX),
            },
            task_state: field(&["__state"], "__state")?,
            // There since Linux 5.9.
            task_filters: field(&["seccomp", "filter_count"], "seccomp.filter_count").unwrap_or(0),
            padding: 0,
            task_pid: field(&["pid"], "pid")?,
        };
        let blocked = match options.event {
            Event::Tick => 1,
            Event::Block { threads, .. } => threads.clamp(1, MAX_BLOCKED_THREADS),
        };
        let mappings = match options.scope {
            Scope::Listed => LISTED_MAPPINGS,
            Scope::Host | Scope::Cgroup { .. } => 4 * LISTED_MAPPINGS,
        };
        let cpus = aya::util::nr_cpus().map_err(|(what, source)| Error::Cpus { what, source })?;
        let object = kfunc::resolve(OBJECT, send_signal_task).ok_or(Error::NotOurs {
            what: "call of bpf_send_signal_task",
        })?;
        let mut bpf = aya::EbpfLoader::new()
            .override_global("CONFIG", config.as_bytes(), true)
            .map_max_entries("SCRATCH", cpus as u32)
            .map_max_entries("RING", ring_bytes)
            .map_max_entries("BLOCKED", blocked)
            .map_max_entries("MAPPINGS", mappings)
            .load(&object)
            .map_err(|source| Error::Load(Box::new(source)))?;
        // Before the maps are taken over: the programs refer to them by descriptor.
        for name in ["forked", "execed"] {
            program::<RawTracePoint>(&mut bpf, name)?
                .load()
                .map_err(refused("load", name))?;
        }
        match options.event {
            Event::Tick => program::<PerfEvent>(&mut bpf, "sample")?
                .load()
                .map_err(refused("load", "sample"))?,
            Event::Block { .. } => program::<RawTracePoint>(&mut bpf, "switched")?
                .load()
                .map_err(refused("load", "switched"))?,
        }
        let tables = Tables::new(&mut bpf)?;
        let ring = RingBuf::try_from(tables::take(&mut bpf, "RING")?).map_err(Error::map("RING"))?;
        let counters =
            PerCpuArray::try_from(tables::take(&mut bpf, "COUNTERS")?).map_err(Error::map("COUNTERS"))?;
        Ok((
            Self {
                bpf,
                ring,
                counters,
                options,
                sideband: None,
            },
            tables,
        ))
    }

    /// Follows forks, execs and new code of watched processes from now on.
    ///
    /// # Errors
    /// The kernel refused to attach.
    pub fn follow(&mut self) -> Result<(), Error> {
        for (name, tracepoint) in [("forked", "sched_process_fork"), ("execed", "sched_process_exec")] {
            program::<RawTracePoint>(&mut self.bpf, name)?
                .attach(tracepoint)
                .map_err(refused("attach", name))?;
        }
        self.sideband = Some(Sideband::open(&online_cpus()?).map_err(Error::Sideband)?);
        Ok(())
    }

    /// Readable when a process has mapped new code.
    ///
    /// # Errors
    /// No descriptor is left, or the event loop cannot take it.
    pub fn remapped_readiness(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let sideband = self.sideband.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        sys::readiness(sideband.readiness()?)
    }

    /// What code was mapped since the last call.
    pub fn remapped(&mut self) -> Remapped {
        self.sideband.as_mut().map(Sideband::take).unwrap_or_default()
    }

    /// Starts to sample, on every CPU.
    ///
    /// # Errors
    /// The kernel refused to attach.
    pub fn start(&mut self) -> Result<(), Error> {
        if let Event::Block { .. } = self.options.event {
            program::<RawTracePoint>(&mut self.bpf, "switched")?
                .attach("sched_switch")
                .map_err(refused("attach", "switched"))?;
            return Ok(());
        }
        let period = 1_000_000_000 / self.options.frequency_hz;
        let clock = program::<PerfEvent>(&mut self.bpf, "sample")?;
        for cpu in online_cpus()? {
            clock
                .attach(
                    PerfEventConfig::Software(SoftwareEvent::CpuClock),
                    PerfEventScope::AllProcessesOneCpu { cpu },
                    SamplePolicy::Period(period),
                    false,
                )
                .map_err(refused("attach", "sample"))?;
        }
        Ok(())
    }

    /// Stops sampling. What was sent can still be read.
    pub fn stop(&mut self) {
        // Unloading detaches every link; it cannot fail in a way that leaves one behind.
        match self.options.event {
            Event::Tick => {
                if let Ok(clock) = program::<PerfEvent>(&mut self.bpf, "sample") {
                    let _ = clock.unload();
                }
            }
            Event::Block { .. } => {
                if let Ok(switched) = program::<RawTracePoint>(&mut self.bpf, "switched") {
                    let _ = switched.unload();
                }
            }
        }
    }

    /// The next record that waits, if one does.
    pub fn next_record(&mut self) -> Option<impl std::ops::Deref<Target = [u8]>> {
        self.ring.next()
    }

    /// Readable when much is waiting or something has to be done at once.
    ///
    /// # Errors
    /// No descriptor is left, or the event loop cannot take it.
    pub fn readiness(&self) -> io::Result<AsyncFd<OwnedFd>> {
        sys::readiness(self.ring.as_fd().try_clone_to_owned()?)
    }

    /// What was counted so far, over all CPUs.
    ///
    /// # Errors
    /// The kernel refused to say.
    pub fn counts(&self) -> Result<Counts, Error> {
        Ok(Counts {
            taken: self.counter(Counter::Taken)?,
            lost_ring_full: self.counter(Counter::LostRingFull)?,
            lost_ticks: self.counter(Counter::LostTicks)?,
            withheld_ticks: self.counter(Counter::WithheldTicks)?,
            lost_requests: self.counter(Counter::LostRequests)?,
            blocks: self.counter(Counter::Blocks)?,
            blocks_without_room: self.counter(Counter::BlocksWithoutRoom)?,
            short_blocks: (
                self.counter(Counter::ShortBlocks)?,
                self.counter(Counter::ShortBlockNs)?,
            ),
        })
    }

    /// Who was asked what hooks say so far, and who was not, over all CPUs.
    ///
    /// # Errors
    /// The kernel refused to say.
    pub fn asked(&self) -> Result<AskedCounts, Error> {
        let mut not_asked = NotAsked::ALL.map(|reason| (reason, 0));
        for (reason, n) in &mut not_asked {
            *n = self.counter(reason.counter())?;
        }
        Ok(AskedCounts {
            asked: self.counter(Counter::Asked)?,
            not_asked,
        })
    }

    /// A counter, over all CPUs. A system call.
    fn counter(&self, counter: Counter) -> Result<u64, Error> {
        let cells = self
            .counters
            .get(&(counter as u32), 0)
            .map_err(Error::map("COUNTERS"))?;
        Ok(cells.iter().sum())
    }
}

/// Lines of the verifier's log that are of use to people.
const LOG_LINES: usize = 8;

fn online_cpus() -> Result<Vec<u32>, Error> {
    aya::util::online_cpus().map_err(|(what, source)| Error::Cpus { what, source })
}

fn program<'b, P>(bpf: &'b mut aya::Ebpf, name: &'static str) -> Result<&'b mut P, Error>
where
    &'b mut P: TryFrom<&'b mut aya::programs::Program, Error = ProgramError>,
{
    let program = bpf.program_mut(name).ok_or(Error::NotOurs { what: name })?;
    program.try_into().map_err(refused("find", name))
}

fn refused(action: &'static str, program: &'static str) -> impl FnOnce(ProgramError) -> Error {
    move |source| match source {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } if !verifier_log.to_string().is_empty() => Error::Verifier {
            program,
            log: last_lines(&verifier_log.to_string()),
            source: io_error,
        },
        source => Error::Program {
            action,
            program,
            source: Box::new(source),
        },
    }
}

/// The end of what the verifier wrote, which can be as long as a book.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("; ")
}

/// Room for a quarter of a second of samples of middling depth from every CPU, between 1 and 64 MiB. A power of
/// two, as the kernel wants it.
fn ring_bytes(options: &Options) -> u32 {
    const SAMPLE_BYTES: u64 = 1024;
    let cpus = aya::util::nr_cpus().unwrap_or(1) as u64;
    let bytes = (options.frequency_hz * cpus * SAMPLE_BYTES / 4).next_power_of_two();
    bytes.clamp(1 << 20, 64 << 20) as u32
}

#[cfg(test)]
mod tests {
    use super::{Event, LOG_LINES, Options, Sampler, Scope, last_lines};
    use std::time::Duration;

    #[test]
    fn of_a_long_log_the_end_is_told() {
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n}\n\n")).collect();
        let told = last_lines(&lines.concat());
        assert!(
            told.starts_with("line 992; ") && told.ends_with("; line 999"),
            "{told}"
        );
        assert_eq!(told.split("; ").count(), LOG_LINES);
        assert_eq!(last_lines("refused"), "refused");
    }

    #[test]
    fn the_kernel_accepts_the_programs() {
        let btf = super::Btf::of_kernel().expect("this kernel has BTF");
        let block = Event::Block {
            min: Duration::ZERO,
            threads: 100,
        };
        // As they are for it, and as they are for one that cannot send cookies.
        for send_signal_task in [super::kfunc::send_signal_task(&btf), None] {
            for event in [Event::Tick, block] {
                let options = Options {
                    frequency_hz: 99,
                    max_frames: 512,
                    kernel_frames: true,
                    follow_children: true,
                    scope: Scope::Listed,
                    event,
                };
                if let Err(error) = Sampler::load_for(options, &btf, send_signal_task) {
                    panic!("{event:?} {send_signal_task:?}: {:#}", anyhow::Error::from(error));
                }
            }
        }
    }
}
