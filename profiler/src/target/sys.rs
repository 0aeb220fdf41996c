//! Files mapped into our memory.

use bytes::Bytes;
use std::fs::File;
use std::io;

/// The contents of `file`, without reading them.
///
/// # Errors
/// What the kernel says to mmap.
pub fn map_file(file: &File) -> io::Result<Bytes> {
    // SAFETY: the mapping is private and read-only. The file can still be changed or cut off by others while we
    // read it, as with any mapping of a file: values may change between two reads, which the parsers allow for by
    // checking what they read and copying nothing twice; a cut-off page raises SIGBUS, the risk that every
    // profiler and debugger takes with the programs it looks at.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}
