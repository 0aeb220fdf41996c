//! What the C library only gives to unsafe code.

/// Has large blocks of memory go back to the system when they are freed, also those of the middle of the heap. glibc else
/// keeps ever larger ones (mallopt(3), the threshold is dynamic): what one file's debug information took stays taken
/// while the next one's is read.
#[cfg(target_env = "gnu")]
pub fn give_back_large_blocks() {
    const BYTES: nix::libc::c_int = 128 << 10;
    // SAFETY: no other thread allocates yet. A failure leaves it as it is.
    let _ = unsafe { nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, BYTES) };
}

/// musl gives them back by itself.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_large_blocks() {}
