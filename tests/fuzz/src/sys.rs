//! The one thing that cannot be made safely.

use profiler_helper::shared::Shared;
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};

/// The memory that the helper shares with the profiler, as it is made: zeros.
pub fn shared() -> Box<Shared> {
    let layout = Layout::new::<Shared>();
    // SAFETY: the type is not empty.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: the memory is as large as the type and nobody else's; the type consists of atomic integers, for which zeros are
    // valid; the box frees it by the same layout.
    unsafe { Box::from_raw(memory.cast()) }
}
