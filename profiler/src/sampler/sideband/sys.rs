//! A perf event that reports executable mappings, and its ring.

use nix::libc;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pages of records in a ring: some five hundred mappings.
const PAGES: usize = 16;

/// `struct perf_event_attr` up to version 3 (include/uapi/linux/perf_event.h), which is all that is needed.
#[repr(C)]
#[derive(Default)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    bp_type: u32,
    breakpoint: [u64; 2],
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
}

/// `PERF_TYPE_SOFTWARE`, `PERF_COUNT_SW_DUMMY`: an event that never happens by itself.
const SOFTWARE: u32 = 1;
const DUMMY: u64 = 9;
/// Flags: `mmap`, report executable mappings; `watermark`, wake up for bytes, not for samples, of which there are none;
/// `sample_id_all` with `PERF_SAMPLE_TIME`, end each record with its time;
/// `use_clockid`, by the clock that the BPF program uses for samples.
const MMAP: u64 = 1 << 8;
const WATERMARK: u64 = 1 << 14;
const SAMPLE_ID_ALL: u64 = 1 << 18;
const SAMPLE_TIME: u64 = 1 << 2;
const USE_CLOCKID: u64 = 1 << 25;

/// `PERF_FLAG_FD_CLOEXEC`.
const FD_CLOEXEC: u64 = 8;

/// Offsets in the first page, `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// What a record starts with: type, flags and, in the last 16 bits, its size with this header.
const HEADER_LEN: usize = 8;

/// The ring of one CPU.
#[derive(Debug)]
pub(super) struct Ring {
    base: NonNull<u8>,
    page: usize,
    event: OwnedFd,
}

// SAFETY: the mapping belongs to the value, and is used through `&mut self` only.
unsafe impl Send for Ring {}

impl Ring {
    /// Opens the event on a CPU, for all processes.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn open(cpu: u32) -> io::Result<Self> {
        let attr = Attr {
            kind: SOFTWARE,
            size: size_of::<Attr>() as u32,
            config: DUMMY,
            sample_type: SAMPLE_TIME,
            flags: MMAP | WATERMARK | SAMPLE_ID_ALL | USE_CLOCKID,
            clockid: libc::CLOCK_MONOTONIC,
            wakeup_watermark: 1,
            ..Attr::default()
        };
        // SAFETY: the attribute says how long it is and lives until the call returns; the other arguments are numbers.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attr,
                -1_i32,
                cpu.cast_signed(),
                -1_i32,
                FD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor; descriptors fit in an int.
        let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let page = rustix::param::page_size();
        // SAFETY: a new mapping at an address of the kernel's choice, of a page of state and 2^n pages of records.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                page * (1 + PAGES),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &event,
                0,
            )?
        };
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?,
            page,
            event,
        })
    }

    /// Readable when records wait.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Takes the records that wait, each with its header.
    pub(super) fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        let head = self.position(DATA_HEAD).load(Ordering::Acquire);
        let mut tail = self.position(DATA_TAIL).load(Ordering::Relaxed);
        let mut record = Vec::new();
        while head.wrapping_sub(tail) >= HEADER_LEN as u64 {
            self.copy(tail, HEADER_LEN, &mut record);
            let len = u16::from_le_bytes([record[6], record[7]]);
            if usize::from(len) < HEADER_LEN || u64::from(len) > head.wrapping_sub(tail) {
                break;
            }
            self.copy(tail, len.into(), &mut record);
            each(&record);
            tail = tail.wrapping_add(len.into());
        }
        self.position(DATA_TAIL).store(head, Ordering::Release);
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: both offsets are of aligned words in the first page, which lives as long as `self`; the kernel reads
        // and writes them as atomic words.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// Replaces `to` by the `len` bytes of the ring from `position` on.
    fn copy(&self, position: u64, len: usize, to: &mut Vec<u8>) {
        let size = self.page * PAGES;
        to.clear();
        to.extend((0..len).map(|i| {
            let at = self.page + (position as usize).wrapping_add(i) % size;
            // SAFETY: `at` is in the pages of records; the kernel does not write to those between tail and head.
            unsafe { self.base.as_ptr().add(at).read() }
        }));
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `open` with this length and nothing refers to it any more. There is nothing
        // to do about a failure.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.page * (1 + PAGES)) };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    /// Maps a page for a moment: where.
    pub(crate) fn map_and_unmap(protection: ProtFlags, flags: MapFlags) -> std::ops::Range<u64> {
        let page = rustix::param::page_size();
        // SAFETY: a new mapping at an address of the kernel's choice, which nobody looks into.
        unsafe {
            let address = mmap_anonymous(std::ptr::null_mut(), page, protection, flags).unwrap();
            munmap(address, page).unwrap();
            address as u64..address as u64 + page as u64
        }
    }
}
