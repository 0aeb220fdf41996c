//! The one thing that bytes cannot become safely.

use profiler_helper::shared::Shared;
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};

/// The memory that the helper shares with the profiler, with `bytes` in it and zeros behind them.
pub fn shared(bytes: &[u8]) -> Box<Shared> {
    let layout = Layout::new::<Shared>();
    // SAFETY: the type is not empty.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    let len = bytes.len().min(layout.size());
    // SAFETY: the memory is as large as the type and nobody else's; the type consists of atomic integers, for which any bytes
    // are valid; the box frees it by the same layout.
    unsafe {
        memory.copy_from_nonoverlapping(bytes.as_ptr(), len);
        Box::from_raw(memory.cast())
    }
}
