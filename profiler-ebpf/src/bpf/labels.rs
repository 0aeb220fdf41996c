//! The labels of the running goroutine (`pprof.Do`), copied behind its stack while it is stopped: later, its memory may
//! hold something else.

use super::maps::{RECORD_WORDS, Scratch};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user as read_user};
use core::ffi::c_void;
use core::ptr::addr_of_mut;
use profiler_abi::go::GoLayout;
use profiler_abi::sample::{Header, LabelWords};

/// Bytes of a Go string: pointer and length.
const STRING: u64 = 16;

/// `hmap` and `bmap` of Go 1.21 to 1.23 (runtime/map.go).
mod map {
    /// The word with flags and the log2 of the number of buckets, in its second byte.
    pub(super) const LOG2_BUCKETS: u64 = 8;
    pub(super) const BUCKETS: u64 = 16;
    /// A bucket: a byte for each of eight places, keys, values.
    pub(super) const PLACES: u32 = 8;
    pub(super) const KEYS: u64 = 8;
    pub(super) const VALUES: u64 = KEYS + 8 * super::STRING;
    /// The least byte of a place that is taken (`minTopHash`).
    pub(super) const TAKEN: u64 = 5;
}

/// What the copying of one label after the other needs. In the scratch memory, where the verifier does not follow each value.
#[repr(C)]
pub struct Copy {
    /// Where `g.labels` is; 0: there can be none.
    pub labels: u64,
    /// See [`GoLayout::label_form`].
    pub form: u64,
    /// The first key, and the first value.
    keys: u64,
    values: u64,
    /// From one to the next.
    stride: u64,
    /// For a bucket of a map, its bytes of places.
    places: u64,
    /// Where in the record the next word goes.
    at: u64,
    n: u64,
    is_cut: u64,
}

/// Copies the labels to the words of the record from `at` on. Returns how many words they take.
#[inline(always)]
pub fn copy(scratch: *mut Scratch, at: u64) -> u64 {
    // SAFETY: scratch is this CPU's entry.
    let copy = unsafe { &mut (*scratch).labels };
    if copy.labels == 0 {
        return 0;
    }
    let Some(labels) = word(copy.labels).filter(|&labels| labels != 0) else {
        return 0;
    };
    copy.at = at;
    copy.n = 0;
    copy.is_cut = 0;
    let wanted = if copy.form == GoLayout::LABEL_LIST as u64 {
        list(copy, labels)
    } else {
        bucket(copy, labels)
    };
    let Some(wanted) = wanted else { return 0 };
    let mut context = Context { scratch };
    // SAFETY: the callback has the signature that bpf_loop wants, and its context is on our stack; scratch is this CPU's
    // entry.
    unsafe {
        bpf_loop(
            wanted,
            copy_one as *const () as *mut c_void,
            (&raw mut context).cast(),
            0,
        );
        let copy = &(*scratch).labels;
        let header = addr_of_mut!((*scratch).header);
        (*header).n_labels = copy.n as u32;
        (*header).n_label_words = copy.at.wrapping_sub(at) as u32;
        if copy.is_cut != 0 {
            (*header).flags |= Header::LABELS_CUT;
        }
        copy.at.wrapping_sub(at)
    }
}

/// A slice of pairs: how many to look at.
#[inline(always)]
fn list(copy: &mut Copy, labels: u64) -> Option<u32> {
    copy.keys = word(labels)?;
    copy.values = copy.keys.wrapping_add(STRING);
    copy.stride = 2 * STRING;
    copy.places = u64::MAX;
    let n = word(labels.wrapping_add(8))?;
    if n > LabelWords::MAX as u64 {
        copy.is_cut = 1;
        return Some(LabelWords::MAX);
    }
    Some(n as u32)
}

/// A map, whose first bucket has all there is if it is the only one: how many places to look at.
#[inline(always)]
fn bucket(copy: &mut Copy, labels: u64) -> Option<u32> {
    let hmap = word(labels)?;
    let first = word(hmap.wrapping_add(map::BUCKETS))?;
    if word(hmap.wrapping_add(map::LOG2_BUCKETS))? >> 8 & 0xff != 0 {
        copy.is_cut = 1;
    }
    copy.places = word(first)?;
    copy.keys = first.wrapping_add(map::KEYS);
    copy.values = first.wrapping_add(map::VALUES);
    copy.stride = STRING;
    Some(map::PLACES)
}

/// The only thing that fits on the stack as the verifier wants it.
struct Context {
    scratch: *mut Scratch,
}

/// Copies a label; 1 ends the loop.
unsafe extern "C" fn copy_one(index: u64, context: *mut c_void) -> i64 {
    // SAFETY: the loop passes the address of `context` in `copy`, which outlives it.
    let scratch = unsafe { (*context.cast::<Context>()).scratch };
    // SAFETY: scratch is this CPU's entry.
    let copy = unsafe { &mut (*scratch).labels };
    let index = index & 7;
    if copy.places >> (index * 8) & 0xff < map::TAKEN {
        return 0;
    }
    let from = index.wrapping_mul(copy.stride);
    let lengths = copy.at;
    copy.at = lengths.wrapping_add(1);
    let (keys, values) = (copy.keys, copy.values);
    let key = copy_string(scratch, keys.wrapping_add(from));
    let value = copy_string(scratch, values.wrapping_add(from));
    let (Some(key), Some(value)) = (key, value) else {
        copy.at = lengths;
        copy.is_cut = 1;
        return 1;
    };
    // SAFETY: scratch is this CPU's entry; the index is masked to the words.
    unsafe {
        (*scratch).words[lengths as usize & (RECORD_WORDS - 1)] = key | value << 32;
    }
    copy.n += 1;
    0
}

/// Copies the string whose pointer and length are at `address`. Returns how many bytes of it are there.
#[inline(always)]
fn copy_string(scratch: *mut Scratch, address: u64) -> Option<u64> {
    // SAFETY: scratch is this CPU's entry.
    let copy = unsafe { &mut (*scratch).labels };
    let (from, mut len) = (word(address)?, word(address.wrapping_add(8))?);
    if len > LabelWords::MAX_BYTES {
        copy.is_cut = 1;
        len = LabelWords::MAX_BYTES;
    }
    let at = copy.at;
    if at > RECORD_WORDS as u64 - LabelWords::MAX_BYTES / 8 {
        return None;
    }
    // SAFETY: scratch is this CPU's entry, and what follows the words there is larger than a string. The helper checks the
    // source.
    let read = unsafe {
        let to = addr_of_mut!((*scratch).words[at as usize & (RECORD_WORDS - 1)]);
        read_user(to.cast(), len as u32, from as *const c_void)
    };
    copy.at = at.wrapping_add(len.wrapping_add(7) >> 3);
    (read == 0).then_some(len)
}

#[inline(always)]
fn word(address: u64) -> Option<u64> {
    let mut word = 0u64;
    // SAFETY: the destination is a word; the helper checks the source.
    let read = unsafe { read_user((&raw mut word).cast(), 8, address as *const c_void) };
    (read == 0).then_some(word)
}
