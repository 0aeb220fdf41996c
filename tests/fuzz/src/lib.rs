//! Everything of the profiler that reads what others wrote, as functions of bytes.
//!
//! A target must come to an end on any bytes, in time and memory that are bounded, without a panic. Some also check what has
//! to hold of a result. `cargo xtask fuzz` runs them under libFuzzer; the tests here try each on its seeds, on simple
//! damages of them, and on what a fuzzer has found once (`found/TARGET/`).
//!
//! ```text
//! targets  the functions
//! elf      object files around the sections that a target is about
//! input    numbers taken from bytes
//! seeds    real inputs to begin with
//! ```

mod elf;
mod input;
mod samples;
mod sys;
mod targets;

pub use elf::parts_of;
pub use samples::Samples;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What reads the bytes.
    pub run: fn(&[u8]),
    /// Inputs are at most so long, in bytes.
    pub max_len: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target("elf", targets::object::elf, 64 << 10),
    target("dwarf", targets::object::dwarf, 32 << 10),
    target("call_frames", targets::object::call_frames, 16 << 10),
    target("go", targets::object::go, 1 << 20),
    target("machine_code", targets::object::machine_code, 4 << 10),
    target("perf_map", targets::text::perf_map, 16 << 10),
    target("kallsyms", targets::text::kallsyms, 16 << 10),
    target("proc", targets::text::proc, 16 << 10),
    target("pprof", targets::profile::pprof, 32 << 10),
    target("folded", targets::profile::folded, 16 << 10),
    target("symbolizer", targets::hooks::symbolizer, 16 << 10),
    target("answers", targets::hooks::answers, 64 << 10),
    target("hook_table", targets::hooks::table, 4 << 10),
    target("sample", targets::walk::sample, 8 << 10),
    target("walk", targets::walk::walk, 8 << 10),
];

const fn target(name: &'static str, run: fn(&[u8]), max_len: usize) -> Target {
    Target { name, run, max_len }
}

/// The target with that name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

#[cfg(test)]
mod tests;
