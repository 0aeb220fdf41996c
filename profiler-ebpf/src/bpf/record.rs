//! Sending records.

use super::maps::{RECORD_WORDS, RING, Record, config, count};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_ringbuf_output, bpf_ringbuf_query};
use core::ffi::c_void;
use profiler_abi::sample::{Header, RecordKind};
use profiler_abi::table::Counter;

#[inline(always)]
fn ring() -> *mut c_void {
    (&raw const RING).cast_mut().cast()
}

/// Sends a sample with the first `n_words` of its words. User space reads the ring on a timer and
/// is woken only when much is waiting: a wake-up per sample would cost more than the sample.
#[inline(always)]
pub fn send(record: *mut Record, n_words: u64) {
    if n_words > RECORD_WORDS as u64 {
        return;
    }
    let bytes = size_of::<Header>() as u64 + n_words * 8;
    // SAFETY: RING is a ring buffer map.
    let waiting = unsafe { bpf_ringbuf_query(ring(), BPF_RB_AVAIL_DATA.into()) };
    let flags = if waiting >= config().wakeup_bytes as u64 {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    // SAFETY: header and words lie one after the other (repr(C)), and n_words is at most the number of words.
    let sent = unsafe { bpf_ringbuf_output(ring(), record.cast(), bytes, flags.into()) };
    count(
        if sent == 0 {
            Counter::Taken
        } else {
            Counter::LostRingFull
        },
        1,
    );
}

/// Tells user space about something that it has to act on at once; false if there was no room.
#[inline(always)]
pub fn send_request(kind: RecordKind, tgid: u32, slot: u32, pc: u64, cookie: u64) -> bool {
    let header = Header {
        kind: kind as u32,
        tgid,
        slot,
        stop_pc: pc,
        cookie,
        // SAFETY: no precondition.
        time_ns: unsafe { bpf_ktime_get_ns() },
        ..Header::default()
    };
    // SAFETY: the pointer and the length are those of the header.
    let sent = unsafe {
        bpf_ringbuf_output(
            ring(),
            (&raw const header).cast_mut().cast(),
            size_of::<Header>() as u64,
            BPF_RB_FORCE_WAKEUP.into(),
        )
    };
    if sent != 0 {
        count(Counter::LostRequests, 1);
    }
    sent == 0
}
