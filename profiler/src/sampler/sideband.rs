//! What the kernel tells beside the samples: which processes have mapped new code.
//!
//! A walk that meets an address in no mapping notices new code by itself. Code that takes the place of other code, as
//! when a library is closed and another one opened, it cannot notice: the tables of the old one fit.

mod sys;

use crate::words::{u32_at, u64_at};
use rustix::event::epoll;
use std::io;
use std::os::fd::OwnedFd;
use sys::Ring;

/// Types of records (include/uapi/linux/perf_event.h).
const RECORD_MMAP: u32 = 1;
const RECORD_LOST: u32 = 2;
/// Where a record of a mapping has the process id, the start and the length; its time is at its end.
const PID: usize = 8;
const START: usize = 16;
const LEN: usize = 24;

/// The rings of all CPUs.
#[derive(Debug)]
pub struct Sideband {
    rings: Vec<Ring>,
}

/// What was mapped since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Remapped {
    /// New code.
    pub new: Vec<NewCode>,
    /// There is more: there was no room to say so.
    pub others: bool,
}

/// A process has mapped code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCode {
    /// The process.
    pub pid: u32,
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// When, `CLOCK_MONOTONIC`, in nanoseconds.
    pub time_ns: u64,
}

impl Sideband {
    /// Listens on these CPUs, to all processes: executable mappings are rare.
    ///
    /// # Errors
    /// What the kernel says to `perf_event_open(2)` or to mapping the ring.
    pub fn open(cpus: &[u32]) -> io::Result<Self> {
        let rings = cpus
            .iter()
            .map(|&cpu| Ring::open(cpu))
            .collect::<io::Result<_>>()?;
        Ok(Self { rings })
    }

    /// Readable when something has been said.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn readiness(&self) -> io::Result<OwnedFd> {
        let all = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for ring in &self.rings {
            epoll::add(
                &all,
                ring.event(),
                epoll::EventData::new_u64(0),
                epoll::EventFlags::IN,
            )?;
        }
        Ok(all)
    }

    /// Takes what has been said.
    pub fn take(&mut self) -> Remapped {
        let mut remapped = Remapped::default();
        for ring in &mut self.rings {
            ring.drain(|record| remapped.add(record));
        }
        remapped
    }
}

impl Remapped {
    /// Takes a record, its header included.
    fn add(&mut self, record: &[u8]) {
        match u32_at(record, 0) {
            Some(RECORD_MMAP) => self.new.extend(NewCode::parse(record)),
            Some(RECORD_LOST) => self.others = true,
            _ => {}
        }
    }
}

impl NewCode {
    fn parse(record: &[u8]) -> Option<Self> {
        let (start, len) = (u64_at(record, START)?, u64_at(record, LEN)?);
        Some(Self {
            pid: u32_at(record, PID)?,
            start,
            end: start.saturating_add(len),
            time_ns: u64_at(record, record.len().checked_sub(8)?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Remapped, Sideband};
    use rustix::mm::{MapFlags, ProtFlags};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Mappings are told to every test of the process, and one of them makes thousands.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now() -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    #[test]
    fn a_process_that_maps_code_is_told() {
        let _alone = alone();
        let cpus = aya::util::online_cpus().unwrap();
        let mut sideband = Sideband::open(&cpus).unwrap();
        // More than the rings hold, so that they wrap around.
        for _ in 0..3000 {
            let before = now();
            let mapped =
                super::sys::tests::map_and_unmap(ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE);
            let remapped = sideband.take();
            // It may have become one with a neighbour.
            let told = remapped.new.iter().find(|new| {
                new.pid == std::process::id() && new.start <= mapped.start && mapped.end <= new.end
            });
            let time = told.expect("it is told").time_ns;
            assert!((before..=now()).contains(&time), "{before} {time}");
        }
    }

    #[test]
    fn whoever_waits_is_woken() {
        let _alone = alone();
        let cpus = aya::util::online_cpus().unwrap();
        let mut sideband = Sideband::open(&cpus).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let readiness = crate::sampler::sys::readiness(sideband.readiness().unwrap()).unwrap();
            for _ in 0..3 {
                super::sys::tests::map_and_unmap(ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE);
                readiness.readable().await.unwrap().clear_ready();
                sideband.take();
            }
        });
    }

    #[test]
    fn rings_that_overflow_say_so() {
        let _alone = alone();
        let overflows = || {
            // Each CPU has a ring of its own, which alone can say what it lost.
            let mut only_here = rustix::thread::CpuSet::new();
            only_here.set(rustix::thread::sched_getcpu());
            rustix::thread::sched_setaffinity(None, &only_here).unwrap();
            let cpus = aya::util::online_cpus().unwrap();
            let mut sideband = Sideband::open(&cpus).unwrap();
            for _ in 0..5000 {
                super::sys::tests::map_and_unmap(ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE);
            }
            sideband.take();
            // The kernel reports what was lost with the next record that has room.
            super::sys::tests::map_and_unmap(ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE);
            assert!(sideband.take().others);
        };
        // A thread of its own: the one that runs this test may run others, which are not to stay on one CPU.
        std::thread::scope(|scope| scope.spawn(overflows).join()).expect("the ring says so");
    }

    #[test]
    fn records_that_are_too_short_say_nothing() {
        let mut remapped = Remapped::default();
        for len in 0..40 {
            let mut record = [1, 0, 0, 0, 0, 0, 0, 0].repeat(5);
            record.truncate(len);
            remapped.add(&record);
            assert!(remapped.new.is_empty() || len >= 32, "{len}");
        }
        remapped.new.clear();
        assert_eq!(remapped, Remapped::default());
    }
}
