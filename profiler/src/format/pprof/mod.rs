//! pprof: `profile.proto` in gzip, the format of `go tool pprof`, Pyroscope and Parca, and the file that we read
//! back.
//!
//! # What has a place of its own
//!
//! Two values per sample, `samples/count` and `cpu/nanoseconds`, the second being the default. A location is one
//! address with the functions inlined there; a mapping is a module. What a stack that is not whole looks like is
//! said in [`super::stack`]: its note is a location without mapping and address. Each sample is labelled with
//! `thread` (name), `tid` and `pid`, and `process` (name) if that is known; with `stop` (label of the reason) if it is not
//! whole; with `mode=kernel` if it interrupted kernel code; and with what the program itself says (`pprof.Do` of Go), whose
//! keys get `program.` before them where they are one of these. Time off the CPU has one value, `off-cpu/nanoseconds`.
//!
//! # What has none
//!
//! *Kind and origin of a frame* travel as fields 1001 of `Function` and `Location`, which `profile.proto` does not
//! define. Every reader of protobuf skips unknown fields, so other tools see an ordinary profile. A list in the
//! comments would have to name functions by id, and tools that merge or filter profiles number functions anew but
//! keep comments: such a list would then be *wrong*. An unknown field is at worst *lost*, and then
//! the kind is guessed from mapping, file name and linker's name, as it is for profiles of other makers.
//!
//! *Facts about the recording* are comments, `name=value` each, for people (`go tool pprof -comments`) and for us:
//! `profiler` (our version), `format` (of these notes), `program`, `pids`, `roots` and `tag` (what stands outside of
//! stacks), `fact.NAME`, `summary.kept`, `summary.complete`,
//! `summary.from_kernel`, `summary.lost_ring_full`, `summary.lost_ticks`, `summary.withheld_ticks`, and `missing` (JSON) for each module without
//! symbols. Reading takes kept, complete and from_kernel from the samples themselves, so that they stay true after
//! other tools have filtered the file.

mod decode;
mod encode;
mod ids;
mod proto;
mod sample;
mod tables;
#[cfg(test)]
mod tests;
mod wire;

use super::Error;
use crate::profile::{Kind, Origin, Profile};

/// Writes a profile. Equal profiles give equal bytes.
///
/// # Errors
/// None that a compressor in memory is known to have; its type demands one.
pub fn write(profile: &Profile) -> Result<Vec<u8>, Error> {
    encode::gzip(&encode::profile(profile)).map_err(Error::Write)
}

/// Reads a CPU profile: one of ours, one of Go's `runtime/pprof`, or another with the same two sample types; in gzip
/// or not.
///
/// What the file does not say is filled in: a stack without a note or a `stop` label counts as whole, a sample
/// without a `thread` label belongs to a thread named like the program, and code without a name is called by
/// module and offset. Labels with numbers that we do not know are left out.
///
/// Bytes are hostile. The unpacked file may not take more than 1 GiB of memory, and what is made of it not more than
/// 2 GiB. A profile of 200,000 distinct stacks, 60 frames each, takes 28 MiB and about 260 MiB.
///
/// # Errors
/// [`Error::NotPprof`], [`Error::Gzip`], [`Error::Damaged`] if it cannot be understood, [`Error::NotCpu`] if it is a
/// profile of something else, [`Error::Newer`], [`Error::NoSamples`], and [`Error::TooLarge`].
pub fn read(bytes: &[u8]) -> Result<Profile, Error> {
    decode::profile(bytes, tables::Limits::default())
}

/// The numbers of the kinds in a file. Never reuse one; 0 is "not said".
const KINDS: [(Kind, u32); 5] = [
    (Kind::Kernel, 1),
    (Kind::Go, 2),
    (Kind::Native, 3),
    (Kind::Rust, 4),
    (Kind::Unknown, 5),
];

/// The numbers of the origins in a file. Never reuse one; 0 is "not said".
const ORIGINS: [(Origin, u32); 3] = [(Origin::Kernel, 1), (Origin::Walked, 2), (Origin::Hook, 3)];

fn number<T: PartialEq>(table: &[(T, u32)], wanted: &T) -> u32 {
    table
        .iter()
        .find(|(value, _)| value == wanted)
        .map_or(0, |(_, number)| *number)
}

fn value<T: Copy>(table: &[(T, u32)], wanted: u32) -> Option<T> {
    table
        .iter()
        .find(|(_, number)| *number == wanted)
        .map(|(value, _)| *value)
}

/// Version of what we put into labels, comments and unknown fields. It grows when an old reader would misunderstand a new
/// file, not when something is added.
const FORMAT: u64 = 1;

/// Keys of labels.
mod label {
    pub(super) const THREAD: &str = "thread";
    pub(super) const TID: &str = "tid";
    pub(super) const PID: &str = "pid";
    pub(super) const PROCESS: &str = "process";
    pub(super) const STOP: &str = "stop";
    pub(super) const MODE: &str = "mode";
    /// The only value of [`MODE`].
    pub(super) const KERNEL: &str = "kernel";
    /// All of ours.
    pub(super) const OURS: [&str; 6] = [THREAD, TID, PID, PROCESS, STOP, MODE];
    /// Stands before a label of the program's that is called like one of ours.
    pub(super) const PROGRAMS: &str = "program.";
}

/// Names of comments.
mod comment {
    pub(super) const PROFILER: &str = "profiler";
    pub(super) const FORMAT: &str = "format";
    pub(super) const PROGRAM: &str = "program";
    pub(super) const PIDS: &str = "pids";
    pub(super) const ROOTS: &str = "roots";
    /// The values of [`ROOTS`].
    pub(super) const PROCESS: &str = "process";
    pub(super) const PER_THREAD: &str = "thread";
    pub(super) const TAG: &str = "tag";
    pub(super) const FACT: &str = "fact.";
    pub(super) const LOST_RING_FULL: &str = "summary.lost_ring_full";
    pub(super) const LOST_TICKS: &str = "summary.lost_ticks";
    pub(super) const WITHHELD_TICKS: &str = "summary.withheld_ticks";
    pub(super) const MISSING: &str = "missing";
}
