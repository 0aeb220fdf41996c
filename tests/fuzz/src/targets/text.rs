//! Lists of the kernel and of JIT compilers.

use bytes::Bytes;
use profiler::addr::Avma;
use profiler::symbolize::{Kallsyms, PerfMap};
use profiler::target::maps;
use profiler::target::status::{Status, Syscall};

/// Addresses to ask for: some that the text may have, and the edges.
fn addresses(data: &[u8]) -> impl Iterator<Item = Avma> {
    let words = data.split(|byte| !byte.is_ascii_hexdigit()).filter_map(|digits| {
        u64::from_str_radix(std::str::from_utf8(digits.get(..16).unwrap_or(digits)).ok()?, 16).ok()
    });
    let near = words
        .take(32)
        .flat_map(|word| [word.wrapping_sub(1), word, word.wrapping_add(1)]);
    near.chain([0, u64::MAX]).map(Avma)
}

pub fn perf_map(data: &[u8]) {
    let map = PerfMap::parse(&Bytes::copy_from_slice(data));
    assert!(map.garbage() <= data.len() as u64);
    for address in addresses(data) {
        let _ = map.lookup(address);
    }
}

pub fn kallsyms(data: &[u8]) {
    let symbols = Kallsyms::parse(Bytes::copy_from_slice(data));
    for address in addresses(data) {
        let _ = symbols.lookup(address);
    }
}

/// Mappings, status and system call of a process.
pub fn proc(data: &[u8]) {
    let (entries, strange) = maps::parse(data);
    assert!(
        entries.iter().all(|entry| entry.start < entry.end),
        "mappings are not empty"
    );
    assert!(entries.len() + strange <= data.len());
    for entry in &entries {
        let _ = (entry.path(), entry.is_shared());
    }
    let _ = Status::parse(data);
    let _ = Syscall::parse(data);
}
