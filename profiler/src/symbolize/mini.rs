//! Mini-debuginfo: the names of a program's internal functions as an ELF file of its own, compressed by xz, in section
//! `.gnu_debugdata` of a stripped program (GDB's manual, "MiniDebugInfo").

use super::elf::Elf;
use bytes::Bytes;
use lzma_rust2::XzReader;
use std::io::Read;

/// Largest file after decompression, in bytes. Those of distributions have less than a megabyte.
const MAX_SIZE: u64 = 256 << 20;
/// Symbols shrink to a quarter; what claims to shrink more than this is made to exhaust our memory.
const MAX_RATIO: u64 = 64;
/// For files so small that proportions say nothing, in bytes.
const SMALL: u64 = 64 << 10;
/// Memory that decompression may take besides, in KiB: enough for the largest dictionary that a preset of xz uses.
const MAX_MEMORY: u32 = (64 << 10) + 1024;

/// The ELF file inside of `elf`; `None` if there is none, or none that can be unpacked within bounds.
pub(super) fn unpack(elf: &Elf) -> Option<Elf> {
    let packed = &elf.section(".gnu_debugdata")?.data;
    let limit = (packed.len() as u64)
        .saturating_mul(MAX_RATIO)
        .clamp(SMALL, MAX_SIZE);
    let mut unpacked = Vec::new();
    let reader = XzReader::new_mem_limit(&packed[..], false, MAX_MEMORY);
    reader.take(limit + 1).read_to_end(&mut unpacked).ok()?;
    if unpacked.len() as u64 > limit {
        return None;
    }
    Elf::parse(&Bytes::from(unpacked)).ok()
}
