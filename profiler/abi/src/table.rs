//! The unwind tables as they lie in the BPF maps.
//!
//! Finding the rule of an address takes four steps, none of which depends on how large the object is:
//!
//! ```text
//! tgid ─► ProcSlot ─► Mapping (binary search over the executable mappings of the process)
//!      ─► directory[mapping.directory + (offset >> 16)]     one word per 64 KiB region of code
//!      ─► region: block index ─► a few candidates ─► rule   all in one shard
//! ```
//!
//! A *region* is 64 KiB of an object's code, aligned in the object's own addresses. It lies within one *shard*
//! (a BPF array with a single value of [`SHARD_BYTES`]):
//!
//! ```text
//! u16 × 257   block index: how many rows start before each 256-byte block of the region (and after the last)
//! u16 × n     low 16 bits of the address where each row starts, ascending; the first is 0
//! (pad to 4)
//! u32 × n     the rules
//! ```
//!
//! Tables belong to object files, not to processes, so processes that map one file share them.

use crate::go::{GoLayout, MAX_RUNTIMES};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes in a shard.
pub const SHARD_BYTES: usize = 1 << 20;
/// The most shards that there can be: 4 GiB of tables.
pub const MAX_SHARDS: u32 = 4096;
/// log2 of the bytes of code in a region.
pub const REGION_SHIFT: u32 = 16;
/// log2 of the bytes of code in a block of a region.
pub const BLOCK_SHIFT: u32 = 8;
/// Entries of a region's block index: one per block, and the number of rows at the end.
pub const BLOCK_INDEX_LEN: usize = (1 << (REGION_SHIFT - BLOCK_SHIFT)) + 1;

/// One entry of the directory: where a region's table is.
///
/// Bits 0..17: offset in the shard / 8; bits 17..31: shard + 1. 0: the region has no table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct RegionRef(pub u32);

impl RegionRef {
    /// No table.
    pub const NONE: Self = Self(0);

    /// The table at byte `offset` (a multiple of 8) of `shard`.
    pub const fn new(shard: u32, offset: usize) -> Self {
        Self((shard + 1) << 17 | (offset / 8) as u32)
    }

    /// The shard, if there is a table.
    #[inline(always)]
    pub const fn shard(self) -> Option<u32> {
        (self.0 >> 17).checked_sub(1)
    }

    /// Byte offset in the shard.
    #[inline(always)]
    pub const fn offset(self) -> usize {
        (self.0 & 0x1_ffff) as usize * 8
    }
}

/// One executable mapping of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// What to subtract from an address to get the object's own address of it (its *stated* virtual address).
    pub bias: u64,
    /// Index in the directory of the region that holds the object's own address 0.
    /// [`Mapping::NO_TABLE`] for code without tables (JIT): frame pointers only. [`Mapping::PENDING`] while they
    /// are being built.
    pub directory: u32,
    /// How many regions the object has.
    pub n_regions: u32,
}

impl Mapping {
    /// The mapping has no tables and will have none.
    pub const NO_TABLE: u32 = u32::MAX;
    /// The tables of the mapping are being built.
    pub const PENDING: u32 = u32::MAX - 1;
}

/// One process that is watched.
///
/// A slot belongs to one program image: after an exec the process gets a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProcSlot {
    /// Where the process's list of mappings is and what it is called in the cache of rules. Written in one
    /// store after the list itself, so that the walk sees an old list or a new one: bits 0..32 generation,
    /// bits 32..64 index of the list in the map of mappings. Generation 0: nothing is known yet.
    ///
    /// Generations are unique over all processes of a recording, which makes (generation, address) a key.
    ///
    /// The list's first entry only says how long it is: its `start` is the number of mappings that follow,
    /// in ascending order.
    pub current: u64,
    /// The Go runtimes; the last ones are not present.
    pub go: [GoLayout; MAX_RUNTIMES],
    /// Whether and how traceback hooks of the process are asked.
    pub asking: Asking,
}

/// Whether and how a sampled thread is asked what the traceback hooks of its program say: by a signal whose handler
/// calls them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Asking {
    /// The signal; 0: nobody is asked.
    pub signal: u32,
    /// How many threads may be asked in a window of [`Asking::WINDOW_NS`].
    pub per_window: u32,
    /// Address of the signal's handler: where the process has another one by now, it is not sent.
    pub handler: u64,
    /// The process that is asked. A child that it forked shares its slot as long as it has the same mappings, and has the
    /// handler too, but the memory for its answers is its parent's.
    pub tgid: u32,
    /// How many filters of system calls a thread has that may be asked: as many as the one that was seen to be let return
    /// from signal handlers. A filter is inherited, or put on all threads; only where threads install their own each, as
    /// many are not the same.
    pub filters: u32,
    /// When the window began that the BPF program counts in, `CLOCK_MONOTONIC`, in nanoseconds.
    pub window_ns: u64,
    /// How many threads it asked in it. CPUs count without regard to each other, so one or the other may be missing.
    pub asked: u64,
}

impl Asking {
    /// Length of a window, in nanoseconds.
    pub const WINDOW_NS: u64 = 100_000_000;
}

impl ProcSlot {
    /// In the map of watched processes: the process has just called exec, and user space has not made a slot for
    /// the new program image yet.
    pub const PENDING: u32 = u32::MAX;
    /// There: the tables have no room for the process. Its stacks are not walked.
    pub const NO_ROOM: u32 = u32::MAX - 1;
    /// In a sample: the thread is the kernel's, and has no user stack.
    pub const KERNEL: u32 = u32::MAX - 2;
    /// In the map of watched processes: the system does not let user space look at the process.
    pub const NOT_ALLOWED: u32 = u32::MAX - 3;
}

/// What the recording wants, fixed before the program is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// Offset of `thread.fsbase` in the kernel's `struct task_struct`, in bytes, from the kernel's BTF.
    pub task_fsbase: u32,
    /// Offset of `tgid` there.
    pub task_tgid: u32,
    /// The most user frames of a sample; at most [`crate::MAX_USER_FRAMES`].
    pub max_frames: u32,
    /// Whether kernel frames are wanted: 0 or 1.
    pub kernel_frames: u32,
    /// Whether children of watched processes are watched too: 0 or 1.
    pub follow_children: u32,
    /// Bytes waiting in the ring buffer from which on user space is woken instead of being left to its timer.
    pub wakeup_bytes: u32,
    /// Nanoseconds between two samples of a CPU.
    pub period_ns: u64,
    /// Offset in `struct task_struct` of `flags`, and of the following.
    pub task_flags: u32,
    /// `blocked`: the signals that the thread does not take.
    pub task_blocked: u32,
    /// `pending.signal`: those that wait for it.
    pub task_pending: u32,
    /// `signal`: what the threads of the process share.
    pub task_signal: u32,
    /// Offset of `shared_pending.signal` in `struct signal_struct`.
    pub signal_pending: u32,
    /// `sas_ss_sp`: the thread's alternate stack for signals.
    pub task_altstack: u32,
    /// `sas_ss_size`: its size; 0 if there is none.
    pub task_altstack_size: u32,
    /// `sighand`: what the threads of the process do on signals.
    pub task_sighand: u32,
    /// Offset of `action` in `struct sighand_struct`.
    pub sighand_action: u32,
    /// Offset of `vm_start` in `struct vm_area_struct`.
    pub mapping_start: u32,
    /// Offset of `nvcsw` in `struct task_struct`: how often the thread gave the CPU away.
    pub task_gave_way: u32,
    /// Offset of `nivcsw`: how often it was taken.
    pub task_preempted: u32,
    /// Whose samples are wanted: [`Config::LISTED`], [`Config::HOST`] or [`Config::CGROUP`].
    pub scope: u32,
    /// How deep in the tree of control groups the wanted one is, at least; the root is at 0.
    pub cgroup_level: u32,
    /// Its id.
    pub cgroup_id: u64,
    /// A thread that was off the CPU for less is only counted, in nanoseconds.
    pub min_block_ns: u64,
    /// Offset of `__state` in `struct task_struct`: 0 while a thread can run.
    pub task_state: u32,
    /// Offset of `pid`: the id of the thread.
    pub task_pid: u32,
    /// Offset of `seccomp.filter_count`; 0 where the kernel has no filters of system calls.
    pub task_filters: u32,
    /// Nothing.
    pub padding: u32,
}

impl Config {
    /// Processes in the map of watched processes.
    pub const LISTED: u32 = 0;
    /// All.
    pub const HOST: u32 = 1;
    /// Those in a control group (version 2) or below it.
    pub const CGROUP: u32 = 2;
}

/// Counters that the BPF program keeps, one array per CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Samples of watched processes that were taken.
    Taken = 0,
    /// Samples lost because the ring buffer was full.
    LostRingFull = 1,
    /// Ticks of the sampling clock that never came before one that found a watched thread in a system call: the
    /// kernel had interrupts off. Of this and [`Self::WithheldTicks`], only those are counted since whose last
    /// predecessor the thread has had the CPU: before, it may not have run.
    LostTicks = 2,
    /// Requests (not samples) lost because the ring buffer was full.
    LostRequests = 3,
    /// Ticks that never came before one that found a watched process anywhere else: something else had the CPU.
    WithheldTicks = 4,
    /// Threads that were asked what their program's hooks say.
    Asked = 5,
    /// Threads that were not asked, because they are exiting.
    NotAskedExiting = 6,
    /// ... because they have the signal blocked.
    NotAskedBlocked = 7,
    /// ... because the signal waits for them already.
    NotAskedPending = 8,
    /// ... because a frame of their stack is in a danger zone.
    NotAskedDanger = 9,
    /// ... because there is no room for a handler: on their alternate stack, which they are on already, or on their own.
    NotAskedNoStack = 10,
    /// ... because enough were asked in the last moment.
    NotAskedRate = 11,
    /// ... because the kernel could not send the signal.
    NotAskedBusy = 12,
    /// ... because another signal is about to be delivered to them.
    NotAskedOther = 13,
    /// ... because their process has set another handler for the signal.
    NotAskedReplaced = 14,
    /// Threads that left the CPU to wait for something.
    Blocks = 15,
    /// ... and whose stack found no room.
    BlocksWithoutRoom = 16,
    /// ... and that came back too soon to be of interest.
    ShortBlocks = 17,
    /// How long those were off the CPU in all, in nanoseconds.
    ShortBlockNs = 18,
    /// Threads that were not asked, because they have other filters of system calls than they are known to have.
    NotAskedFiltered = 19,
}

impl Counter {
    /// How many counters there are.
    pub const COUNT: u32 = 20;
}

#[cfg(test)]
mod tests {
    use super::RegionRef;

    #[test]
    fn region_references_come_back() {
        for (shard, offset) in [(0, 0), (0, 8), (7, 1 << 19), (4095, (1 << 20) - 8)] {
            let r = RegionRef::new(shard, offset);
            assert_eq!((r.shard(), r.offset()), (Some(shard), offset));
        }
        assert_eq!(RegionRef::NONE.shard(), None);
    }
}
