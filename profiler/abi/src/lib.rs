//! All that crosses a boundary of the profiler: the unwind tables that user space writes and the BPF
//! program reads, and the samples that come back.
//!
//! Rules for types here: `#[repr(C)]`, no padding that is not a named field, integers only (no `bool`, no
//! `enum` in a shared field), no allocation. Both sides are built from the same source, so a change here is a
//! change of both; [`VERSION`] is part of the digest that ties a built BPF object to its sources.
#![no_std]

pub mod go;
pub mod kfunc;
pub mod rule;
pub mod sample;
pub mod stop;
pub mod table;

/// Bumped whenever the meaning of a shared type changes without its layout changing.
pub const VERSION: u32 = 1;

/// The most user frames that one sample can hold.
pub const MAX_USER_FRAMES: usize = 512;

/// The most kernel frames that one sample can hold; the kernel's own default limit is
/// `kernel.perf_event_max_stack` = 127.
pub const MAX_KERNEL_FRAMES: usize = 127;
