//! What the C library only gives to unsafe code.

/// From now on, large blocks of memory go back to the system when they are freed, also those of the middle of the heap.
/// glibc else keeps ever larger ones (mallopt(3), the threshold is dynamic): what one file's tables or debug information
/// took stays taken while the next one's are read.
#[cfg(target_env = "gnu")]
pub fn give_back_large_blocks() {
    const BYTES: nix::libc::c_int = 128 << 10;
    // SAFETY: it stores two words that allocations of other threads read, who may find either value in them
    // (malloc/malloc.c, `do_set_mmap_threshold`). A failure leaves them as they are.
    let _ = unsafe { nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, BYTES) };
}

/// musl gives them back by itself.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_large_blocks() {}
