//! Every map, its size and why. What the layout of the tables is: `profiler_abi::table`.

use super::labels;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use profiler_abi::rule::ExtRule;
use profiler_abi::sample::{Header, Regs};
use profiler_abi::table::{Config, Counter, MAX_SHARDS, Mapping, ProcSlot, RegionRef, SHARD_BYTES};
use profiler_abi::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES};
use profiler_ebpf::walk::{FETCH_WORDS, State};

/// User space maps it and writes rows by plain stores.
const MMAPABLE: usize = 1 << 10;

/// What the recording wants; user space fixes it before the program is loaded.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config {
    task_fsbase: 0,
    task_tgid: 0,
    max_frames: 0,
    kernel_frames: 0,
    follow_children: 0,
    wakeup_bytes: 0,
    period_ns: 0,
    task_flags: 0,
    task_blocked: 0,
    task_pending: 0,
    task_signal: 0,
    signal_pending: 0,
    task_altstack: 0,
    task_altstack_size: 0,
    task_sighand: 0,
    sighand_action: 0,
    mapping_start: 0,
    task_gave_way: 0,
    task_preempted: 0,
    scope: 0,
    cgroup_level: 0,
    cgroup_id: 0,
    min_block_ns: 0,
    task_state: 0,
    task_pid: 0,
    task_filters: 0,
    padding: 0,
};

/// The configuration, read so that the compiler cannot take the value above for granted.
#[inline(always)]
pub fn config() -> &'static Config {
    // SAFETY: CONFIG is a static of exactly this type; the read goes through memory that user space filled.
    unsafe { &*core::hint::black_box(&raw const CONFIG) }
}

/// Watched processes: tgid → index in [`SLOTS`]. Room for every process that a large host runs.
#[btf_map]
pub static PROCS: HashMap<u32, u32, 16384> = HashMap::new();

/// What is known of each watched program image.
#[btf_map]
pub static SLOTS: Array<ProcSlot, 16384, MMAPABLE> = Array::new();

/// Lists of mappings, each headed by its length.
#[btf_map]
pub static MAPPINGS: Array<Mapping, 131072, MMAPABLE> = Array::new();

/// Where the table of each 64 KiB region of code is: enough for 16 GiB of code.
#[btf_map]
pub static DIRECTORY: Array<RegionRef, 262144, MMAPABLE> = Array::new();

/// One shard of tables. A single large value instead of many small ones: one look-up makes the whole shard
/// readable by plain loads.
pub type Shard = Array<[u8; SHARD_BYTES], 1, MMAPABLE>;

/// The shards; user space adds them one by one as tables grow.
#[btf_map]
pub static SHARDS: ArrayOfMaps<Shard, { MAX_SHARDS as usize }> = ArrayOfMaps::new();

/// Rules that the packed form cannot say, shared by all objects.
#[btf_map]
pub static EXT_RULES: Array<ExtRule, 65536, MMAPABLE> = Array::new();

/// log2 of the entries in a CPU's cache of rules.
pub const CACHE_BITS: u32 = 12;

/// A rule that was looked up before.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Cached {
    /// The address.
    pub pc: u64,
    /// Bits 0..32: the rule; bits 32..64: the generation that it belongs to.
    pub rule: u64,
}

/// Words of stack that are read at once.
pub const WINDOW_WORDS: usize = 128;

/// Words of one record: kernel frames, user frames, and two words for each context. A power of two, so that a
/// masked index is one the verifier believes.
pub const RECORD_WORDS: usize = 1024;
const _: () = assert!(MAX_KERNEL_FRAMES + MAX_USER_FRAMES + 2 * 128 < RECORD_WORDS);

/// A record as it is sent.
#[repr(C)]
pub struct Record {
    pub header: Header,
    pub words: [u64; RECORD_WORDS],
}

/// A binary search: the answer is in `lo..=hi`.
#[repr(C)]
pub struct Search {
    pub key: u64,
    pub first: u32,
    pub lo: u32,
    pub hi: u32,
}

/// What one CPU needs while it takes a sample, too large for the BPF stack.
#[repr(C)]
pub struct Scratch {
    /// The record being made, sent in one piece with the words that follow.
    pub header: Header,
    pub words: [u64; RECORD_WORDS],
    /// Registers of the interrupted code, as `struct pt_regs` (and room to mask an index).
    pub regs: [u64; 32],
    /// A piece of the stack, and its address; address 0: nothing is in it.
    pub window: [u64; WINDOW_WORDS],
    pub window_at: u64,
    /// Where the walk and its searches stand. In the map and not on the BPF stack, where the verifier would follow
    /// each combination of values that it knows; what it reads from a map it does not know.
    pub state: State,
    pub search: Search,
    pub labels: labels::Copy,
    /// Words that a step asked for at once (and room to mask an index).
    pub fetched: [u64; 32],
    /// When the last tick of this CPU's sampling clock was due: see [`profiler_ebpf::ticks`].
    pub tick_due_ns: u64,
    /// Which thread the last tick found, as bpf_get_current_pid_tgid() has it.
    pub last_thread: u64,
    /// How often that had been taken off a CPU by then, if it was a watched one.
    pub last_switches: u64,
    pub cache: [Cached; 1 << CACHE_BITS],
}
const _: () = assert!(Regs::WORDS <= 32 && FETCH_WORDS <= 32);

/// One per CPU; not a per-CPU map, whose values are limited to 32 KiB. User space sets the number of entries to
/// the number of CPUs.
#[btf_map]
pub static SCRATCH: Array<Scratch, 1> = Array::new();

/// Threads that are off the CPU: tid → the stack with which they left it, and when. User space sets the number of
/// entries by the number of threads, if time off the CPU is wanted.
#[btf_map]
pub static BLOCKED: HashMap<u32, Record, 1> = HashMap::new();

/// See [`Counter`].
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Counter::COUNT as usize }> = PerCpuArray::new();

/// Records on their way to user space; it sets the size by the sampling rate.
#[btf_map]
pub static RING: RingBuf<Header, { 8 << 20 }> = RingBuf::new();

/// Adds `n` to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter, n: u64) {
    if let Some(cell) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the map gave a valid pointer to this CPU's cell, and nothing else on this CPU runs between the
        // load and the store but a program that adds to it as well, in the worst case losing a count.
        unsafe { *cell += n };
    }
}
