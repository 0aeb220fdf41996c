//! BPF arrays mapped into our memory, so that a row is written by a store and not by a system call.

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::unix::AsyncFd;
use zerocopy::{Immutable, IntoBytes};

/// A BPF array created with `BPF_F_MMAPABLE`, mapped for writing.
#[derive(Debug)]
pub struct MappedArray<T> {
    base: NonNull<u8>,
    entries: usize,
    bytes: usize,
    _entry: PhantomData<T>,
}

// SAFETY: the mapping belongs to the value and is written through `&mut self` only; the BPF program reads it
// without regard to who wrote it.
unsafe impl<T: Send> Send for MappedArray<T> {}

impl<T: IntoBytes + Immutable> MappedArray<T> {
    /// The kernel lays entries out at multiples of 8 bytes (kernel/bpf/arraymap.c, `array_map_alloc`).
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps the array behind `fd`, which has `entries` entries of type `T`.
    ///
    /// # Errors
    /// What the kernel says to mmap.
    pub fn new(fd: impl AsFd, entries: usize) -> io::Result<Self> {
        let bytes = entries
            .checked_mul(Self::STRIDE)
            .ok_or(io::ErrorKind::InvalidInput)?
            .next_multiple_of(rustix::param::page_size());
        // SAFETY: a new mapping at an address of the kernel's choice; the length is that of the array, rounded
        // to pages as the kernel rounds it.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            base,
            entries,
            bytes,
            _entry: PhantomData,
        })
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Writes entry `index`; false if there is none.
    #[must_use]
    pub fn store(&mut self, index: usize, entry: &T) -> bool {
        self.store_bytes(index, 0, entry.as_bytes())
    }

    /// Writes `bytes` into entry `index`, from byte `offset` on; false if they do not fit.
    #[must_use]
    pub fn store_bytes(&mut self, index: usize, offset: usize, bytes: &[u8]) -> bool {
        if index >= self.entries
            || offset
                .checked_add(bytes.len())
                .is_none_or(|end| end > size_of::<T>())
        {
            return false;
        }
        // SAFETY: the range is inside the mapping: index and offset were checked, and `entries · STRIDE` bytes
        // are mapped. Source and destination do not overlap, since nobody else has a reference into the mapping.
        unsafe {
            let at = self.base.as_ptr().add(index * Self::STRIDE + offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
        }
        true
    }

    /// Replaces the first 8 bytes of entry `index` in one store, after everything written before; false if
    /// there is no such entry.
    #[must_use]
    pub fn publish(&mut self, index: usize, word: u64) -> bool {
        if index >= self.entries || size_of::<T>() < 8 {
            return false;
        }
        // SAFETY: inside the mapping, as above; the mapping is page-aligned and STRIDE a multiple of 8, so the
        // word is aligned. Others only read it.
        let word_in_map = unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(index * Self::STRIDE).cast()) };
        word_in_map.store(word, Ordering::Release);
        true
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and nothing refers to it any more. There is
        // nothing to do about a failure.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A descriptor that the event loop waits for.
///
/// # Errors
/// The event loop cannot take it.
pub fn readiness(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd means the same open file until it is dropped, and the AsyncFd owns it.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}
