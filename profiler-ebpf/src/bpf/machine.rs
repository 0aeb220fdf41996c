//! The machine of the walk in BPF: process memory by helpers, rules from the maps.

use super::maps::{
    CACHE_BITS, Cached, DIRECTORY, EXT_RULES, MAPPINGS, RECORD_WORDS, SCRATCH, SHARDS, Scratch, WINDOW_WORDS,
    config,
};
use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_loop, bpf_probe_read_user as read_user};
use core::ffi::c_void;
use core::ptr::addr_of_mut;
use profiler_abi::go::{GoLayout, MAX_RUNTIMES};
use profiler_abi::rule::{ExtRule, Rule};
use profiler_abi::stop::StopReason;
use profiler_abi::table::{BLOCK_INDEX_LEN, BLOCK_SHIFT, Mapping, ProcSlot, REGION_SHIFT, SHARD_BYTES};
use profiler_ebpf::walk::{FETCH_WORDS, Machine, State};

/// Bytes in the window of stack.
const WINDOW_BYTES: u64 = WINDOW_WORDS as u64 * 8;

/// log2 of the most mappings of a process; also the number of steps of the search.
const MAPPING_STEPS: u32 = 17;

/// Steps of the search in a block: at most one row per byte.
const ROW_STEPS: u32 = BLOCK_SHIFT + 1;

/// Everything that one walk works on. Both pointers are to map values.
#[derive(Clone, Copy)]
pub struct Bpf {
    pub scratch: *mut Scratch,
    pub slot: *const ProcSlot,
    /// Generation of the process's tables, and where its list of mappings starts.
    pub generation: u32,
    pub mappings: u32,
}

impl Machine for Bpf {
    #[inline(always)]
    fn stack_word(&mut self, state: &State, address: u64) -> Option<u64> {
        let scratch = self.scratch;
        // SAFETY: scratch is this CPU's map value; the program does not migrate, and nothing else uses it.
        let at = unsafe { (*scratch).window_at };
        // As `near_word` looks, but with one place that reads: of a second one, behind `fill_window`, the verifier of Linux 6.1
        // loses the limits of the index.
        if (address.wrapping_sub(at) > WINDOW_BYTES - 8 || address & 7 != 0)
            && !self.fill_window(state, address)
        {
            return self.word(address);
        }
        // SAFETY: as above; the index is masked to the window.
        unsafe {
            let index = address.wrapping_sub((*scratch).window_at) >> 3;
            Some((*scratch).window[index as usize & (WINDOW_WORDS - 1)])
        }
    }

    #[inline(always)]
    fn near_word(&self, address: u64) -> Option<u64> {
        let scratch = self.scratch;
        // SAFETY: scratch is this CPU's map value; the program does not migrate, and nothing else uses it. The index is
        // masked to the window.
        unsafe {
            let offset = address.wrapping_sub((*scratch).window_at);
            if offset > WINDOW_BYTES - 8 || address & 7 != 0 {
                return None;
            }
            Some((*scratch).window[(offset >> 3) as usize & (WINDOW_WORDS - 1)])
        }
    }

    #[inline(always)]
    fn word(&mut self, address: u64) -> Option<u64> {
        // SAFETY: the helper checks the address and fails on one that is not readable user memory.
        unsafe { bpf_probe_read_user(address as *const u64) }.ok()
    }

    #[inline(always)]
    fn fetch<const N: usize>(&mut self, address: u64) -> bool {
        const { assert!(N <= FETCH_WORDS) };
        // SAFETY: the destination has room for N words; the helper checks the source.
        unsafe {
            read_user(
                addr_of_mut!((*self.scratch).fetched).cast(),
                (N * 8) as u32,
                address as *const c_void,
            ) == 0
        }
    }

    #[inline(always)]
    fn fetched(&self, index: usize) -> u64 {
        // SAFETY: scratch is this CPU's map value; the index is masked to the array.
        unsafe { (*self.scratch).fetched[index & 31] }
    }

    #[inline(always)]
    fn rule(&mut self, pc: u64) -> Result<Rule, StopReason> {
        if let Some(rule) = self.known_rule(pc) {
            return Ok(rule);
        }
        let found = find_rule(pc, self.mappings as u64);
        if found & STOPPED != 0 {
            return Err(StopReason::from_bits(found as u32).unwrap_or(StopReason::NoRule));
        }
        let rule = Rule(found as u32);
        let cached = self.cached(pc);
        // SAFETY: the pointer is into this CPU's map value.
        unsafe {
            (*cached).pc = pc;
            (*cached).rule = rule.0 as u64 | (self.generation as u64) << 32;
        }
        Ok(rule)
    }

    #[inline(always)]
    fn known_rule(&self, pc: u64) -> Option<Rule> {
        let cached = self.cached(pc);
        // SAFETY: the pointer is into this CPU's map value.
        let (key, value) = unsafe { ((*cached).pc, (*cached).rule) };
        (key == pc && (value >> 32) as u32 == self.generation).then_some(Rule(value as u32))
    }

    #[inline(always)]
    fn ext_rule(&mut self, index: u32) -> Option<ExtRule> {
        EXT_RULES.get(index).copied()
    }

    #[inline(always)]
    fn push(&mut self, state: &mut State, word: u64) -> bool {
        let limit = config().max_frames as u64;
        // SAFETY: scratch is this CPU's map value; the index is masked to the words.
        unsafe {
            let base = (*self.scratch).header.n_kernel as u64;
            if state.n_words >= limit {
                return false;
            }
            (*self.scratch).words[(base + state.n_words) as usize & (RECORD_WORDS - 1)] = word;
        }
        state.n_words += 1;
        true
    }

    #[inline(always)]
    fn reg(&self, index: u32) -> u64 {
        // SAFETY: scratch is this CPU's map value; the index is masked to the array.
        unsafe { (*self.scratch).regs[index as usize & 31] }
    }

    #[inline(always)]
    fn set_reg(&mut self, index: u32, value: u64) {
        // SAFETY: as in `reg`.
        unsafe { (*self.scratch).regs[index as usize & 31] = value };
    }

    #[inline(always)]
    fn go(&self, runtime: usize) -> GoLayout {
        const { assert!(MAX_RUNTIMES.is_power_of_two()) };
        // SAFETY: the slot is a map value, and the index is masked to the array; user space writes its Go part before
        // the process is watched.
        unsafe { (*self.slot).go[runtime & (MAX_RUNTIMES - 1)] }
    }
}

impl Bpf {
    /// The machine of the process in `slot` with its tables, as [`ProcSlot::current`] has them.
    #[inline(always)]
    pub fn new(scratch: *mut Scratch, slot: *const ProcSlot, tables: u64) -> Self {
        Self {
            scratch,
            slot,
            generation: tables as u32,
            mappings: (tables >> 32) as u32,
        }
    }

    /// Where the rule of `pc` is kept once it was looked up.
    #[inline(always)]
    fn cached(&self, pc: u64) -> *mut Cached {
        let hash = pc.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CACHE_BITS);
        // SAFETY: scratch is this CPU's map value; the shift leaves an index below the number of entries, and the
        // mask says so to the verifier.
        unsafe { addr_of_mut!((*self.scratch).cache[hash as usize & ((1 << CACHE_BITS) - 1)]) }
    }

    /// Reads the piece of stack around `address` into the window; false if it cannot be read in one go.
    #[inline(always)]
    fn fill_window(&mut self, state: &State, address: u64) -> bool {
        let scratch = self.scratch;
        // Words are asked for upwards from the stack pointer, a frame at a time. A frame larger than the window
        // is entered at its end.
        let from_sp = address.wrapping_sub(state.sp);
        let start = if from_sp <= WINDOW_BYTES - 64 {
            state.sp
        } else {
            address.wrapping_sub(56)
        };
        // SAFETY: scratch is this CPU's map value. The destination is the whole window; the helper checks the
        // source.
        unsafe {
            (*scratch).window_at = 0;
            if address.wrapping_sub(start) & 7 != 0
                || read_user(
                    addr_of_mut!((*scratch).window).cast(),
                    WINDOW_BYTES as u32,
                    start as *const c_void,
                ) != 0
            {
                // The window would reach beyond the end of the stack, or a rule led to an odd place.
                return false;
            }
            (*scratch).window_at = start;
        }
        true
    }
}

/// Looks a rule up in the tables; see `profiler_abi::table` for their layout. The rule, or [`STOPPED`] and the
/// reason for which there is none.
///
/// A global function: the verifier looks at it once, and not again on every path that leads to a call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_rule(pc: u64, mappings: u64) -> u64 {
    // SAFETY: a helper without preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(scratch) = SCRATCH.get_ptr_mut(cpu) else {
        return STOPPED | StopReason::NoRule as u64;
    };
    match try_find_rule(scratch, pc, mappings as u32) {
        Ok(rule) => rule.0 as u64,
        Err(stop) => STOPPED | stop as u64,
    }
}

/// In the result of [`find_rule`]: it is a [`StopReason`].
const STOPPED: u64 = 1 << 32;

#[inline(always)]
fn try_find_rule(scratch: *mut Scratch, pc: u64, mappings: u32) -> Result<Rule, StopReason> {
    let mapping = find_mapping(scratch, pc, mappings)?;
    match mapping.directory {
        Mapping::NO_TABLE => return Ok(Rule::NONE),
        Mapping::PENDING => return Err(StopReason::TablesPending),
        _ => {}
    }
    let svma = pc.wrapping_sub(mapping.bias);
    let region = svma >> REGION_SHIFT;
    if region >= mapping.n_regions as u64 {
        return Ok(Rule::NONE);
    }
    let Some(at) = DIRECTORY.get(mapping.directory.wrapping_add(region as u32)) else {
        return Ok(Rule::NONE);
    };
    let Some(shard) = at.shard() else {
        return Ok(Rule::NONE);
    };
    let Some(shard) = SHARDS.get_value(shard, &0) else {
        return Ok(Rule::NONE);
    };
    Ok(search_region(scratch, shard, at.offset(), svma as u32 & 0xffff))
}

#[inline(always)]
fn find_mapping(scratch: *mut Scratch, pc: u64, mappings: u32) -> Result<&'static Mapping, StopReason> {
    let head = MAPPINGS.get(mappings).ok_or(StopReason::TablesChanging)?;
    let mut search = MappingSearch { scratch };
    // SAFETY: scratch is this CPU's map value; the callback has the signature that bpf_loop wants and its context is
    // on our stack.
    let lo = unsafe {
        let state = addr_of_mut!((*scratch).search);
        (*state).key = pc;
        (*state).first = mappings.wrapping_add(1);
        (*state).lo = 0;
        (*state).hi = head.start as u32;
        bpf_loop(
            MAPPING_STEPS,
            halve_mappings as *const () as *mut c_void,
            (&raw mut search).cast(),
            0,
        );
        (*state).lo
    };
    // The last mapping that starts at or below pc is number lo − 1; the head of the list shifts it by one.
    if lo == 0 {
        return Err(StopReason::NoMapping);
    }
    let mapping = MAPPINGS
        .get(mappings.wrapping_add(lo))
        .ok_or(StopReason::TablesChanging)?;
    if pc >= mapping.end {
        Err(StopReason::NoMapping)
    } else {
        Ok(mapping)
    }
}

/// A binary search that is a `bpf_loop`: the verifier looks at one step, where it would follow every path through
/// an ordinary loop. Only pointers are on the stack; see `Scratch::state`.
struct MappingSearch {
    scratch: *mut Scratch,
}

unsafe extern "C" fn halve_mappings(_index: u64, search: *mut c_void) -> i64 {
    // SAFETY: the loop passes the address of `search` in `find_mapping`, which outlives it; scratch is this CPU's
    // map value.
    let search = unsafe { &mut (*(*search.cast::<MappingSearch>()).scratch).search };
    if search.lo >= search.hi {
        return 1;
    }
    let mid = search.lo.wrapping_add((search.hi - search.lo) >> 1);
    match MAPPINGS.get(search.first.wrapping_add(mid)) {
        Some(mapping) if mapping.start <= search.key => search.lo = mid.wrapping_add(1),
        _ => search.hi = mid,
    }
    0
}

/// Finds the rule of the address with low 16 bits `low` in the region's table at byte `region` of a shard.
#[inline(always)]
fn search_region(scratch: *mut Scratch, shard: &'static [u8; SHARD_BYTES], region: usize, low: u32) -> Rule {
    let block = region + (low >> BLOCK_SHIFT) as usize * 2;
    let rows = region + BLOCK_INDEX_LEN * 2;
    let mut search = RowSearch { scratch, shard };
    // SAFETY: scratch is this CPU's map value; the callback has the signature that bpf_loop wants and its context
    // is on our stack.
    let lo = unsafe {
        let state = addr_of_mut!((*scratch).search);
        (*state).key = low as u64;
        (*state).first = rows as u32;
        (*state).lo = u16_at(shard, block) as u32;
        (*state).hi = u16_at(shard, block + 2) as u32;
        bpf_loop(
            ROW_STEPS,
            halve_rows as *const () as *mut c_void,
            (&raw mut search).cast(),
            0,
        );
        (*state).lo
    };
    // The last row that starts at or below the address, in this block or an earlier one. A region's first row
    // starts at its first byte, so there is one.
    if lo == 0 {
        return Rule::NONE;
    }
    let n = u16_at(shard, region + (BLOCK_INDEX_LEN - 1) * 2) as usize;
    let rules = (rows + n * 2 + 3) & !3;
    Rule(u32_at(shard, rules + (lo as usize - 1) * 4))
}

/// As [`MappingSearch`], for the rows of one block.
struct RowSearch {
    scratch: *mut Scratch,
    shard: &'static [u8; SHARD_BYTES],
}

unsafe extern "C" fn halve_rows(_index: u64, rows: *mut c_void) -> i64 {
    // SAFETY: the loop passes the address of `search` in `search_region`, which outlives it; scratch is this CPU's
    // map value.
    let rows = unsafe { &*rows.cast::<RowSearch>() };
    // SAFETY: as above.
    let search = unsafe { &mut (*rows.scratch).search };
    if search.lo >= search.hi {
        return 1;
    }
    let mid = search.lo.wrapping_add((search.hi - search.lo) >> 1);
    if u16_at(rows.shard, search.first as usize + mid as usize * 2) as u64 <= search.key {
        search.lo = mid.wrapping_add(1);
    } else {
        search.hi = mid;
    }
    0
}

#[inline(always)]
fn u16_at(shard: &'static [u8; SHARD_BYTES], at: usize) -> u16 {
    let at = at & (SHARD_BYTES - 1) & !1;
    // SAFETY: the masks keep the two bytes inside the shard and aligned.
    unsafe { shard.as_ptr().add(at).cast::<u16>().read() }
}

#[inline(always)]
fn u32_at(shard: &'static [u8; SHARD_BYTES], at: usize) -> u32 {
    let at = at & (SHARD_BYTES - 1) & !3;
    // SAFETY: the masks keep the four bytes inside the shard and aligned.
    unsafe { shard.as_ptr().add(at).cast::<u32>().read() }
}
