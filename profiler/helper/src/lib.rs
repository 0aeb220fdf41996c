//! What the profiler puts into a process to honour its traceback hooks: a signal handler, and the memory that it
//! shares with the profiler.
//!
//! The crate is compiled twice from this source: as a library of the profiler, which needs [`shared`], and by the
//! profiler's build script into the image that is mapped into the target. The image has no libc, no allocator, no
//! panics and no relocations: it is linked with nothing, so a call of any of these would not link.
#![no_std]
// A loop that clears a buffer must not become a call of memset: there is none.
#![no_builtins]

mod go;
mod handler;
pub mod shared;
