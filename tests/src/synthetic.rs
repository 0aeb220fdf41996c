//! Profiles that nobody recorded: as large as one likes, and the same on every machine.
//!
//! They are written here, not by the profiler, so that a mistake in its writer cannot hide one in its reader.

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::HashSet;
use std::io::Write;

/// Functions of the program; a few of them are in most stacks.
const FUNCTIONS: u64 = 2_000;

/// Functions that each calls.
const CALLEES: u64 = 8;

/// Call sites of each function.
const SITES: u64 = 3;

/// Frames of a stack: between these.
const DEPTH: (u64, u64) = (20, 60);

/// The run `seed` of a program with so many distinct stacks, as a pprof file in gzip. Runs of one program have the same
/// stacks and differ in how often each was seen.
///
/// # Errors
/// None that a compressor in memory is known to have; its type demands one.
pub fn profile(stacks: usize, seed: u64) -> Result<Vec<u8>> {
    let mut strings = vec![String::new()];
    let mut string = |text: String| {
        strings.push(text);
        (strings.len() - 1) as u64
    };
    // Field numbers are those of github.com/google/pprof, proto/profile.proto.
    let cpu = Message::default()
        .number(1, string("cpu".into()))
        .number(2, string("nanoseconds".into()));
    let samples = Message::default()
        .number(1, string("samples".into()))
        .number(2, string("count".into()));
    let mut file = Message::default().message(1, &samples).message(1, &cpu);
    let [thread, worker, tid, pid] = ["thread", "worker", "tid", "pid"].map(|text| string(text.into()));

    let mut counts = Random(seed.wrapping_add(1) << 32);
    for (at, stack) in call_tree(stacks).iter().enumerate() {
        let locations: Vec<u64> = stack.iter().rev().copied().collect();
        let count = 1 + counts.below(4);
        let labels = [(thread, 2, worker), (tid, 3, 100 + at as u64 % 4), (pid, 3, 100)];
        let sample = Message::default()
            .packed(1, &locations)
            .packed(2, &[count, count * 1_000_000]);
        let sample = labels.iter().fold(sample, |sample, &(key, field, value)| {
            sample.message(3, &Message::default().number(1, key).number(field, value))
        });
        file = file.message(2, &sample);
    }
    let binary = Message::default()
        .number(1, 1)
        .number(2, 0x40_0000)
        .number(3, 0x80_0000)
        .number(5, string("/usr/bin/bench".into()));
    file = file.message(3, &binary);
    for function in 1..=FUNCTIONS {
        for site in 0..SITES {
            let line = Message::default().number(1, function).number(2, 10 + site);
            let location = Message::default()
                .number(1, location(function, site))
                .number(2, 1)
                .number(3, 0x40_0000 + 0x100 * function + 0x10 * site)
                .message(4, &line);
            file = file.message(4, &location);
        }
        let name = string(format!(
            "example.com/bench/part{}.(*Worker).step{function}",
            function % 40
        ));
        let path = string(format!("/src/bench/part{}/step{function}.go", function % 40));
        let function = Message::default()
            .number(1, function)
            .number(2, name)
            .number(3, name)
            .number(4, path)
            .number(5, 9);
        file = file.message(5, &function);
    }
    file = file
        .number(9, 1_700_000_000_000_000_000 + seed * 60_000_000_000)
        .number(10, 30_000_000_000)
        .message(11, &cpu)
        .number(12, 1_000_000);
    for text in &strings {
        file = file.bytes(6, text.as_bytes());
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&file.0)?;
    Ok(gzip.finish()?)
}

fn location(function: u64, site: u64) -> u64 {
    function * SITES + site
}

/// Distinct stacks, root first. Each leaves an earlier one somewhere in its outer half or deeper, as stacks of real
/// programs have much in common.
fn call_tree(stacks: usize) -> Vec<Vec<u64>> {
    let mut random = Random(1);
    let mut tree: Vec<Vec<u64>> = Vec::with_capacity(stacks);
    let mut distinct = HashSet::with_capacity(stacks);
    while tree.len() < stacks {
        let earlier = tree.get(random.below(tree.len() as u64) as usize);
        let mut stack = earlier.map_or_else(
            || vec![location(1, 0)],
            |earlier| {
                let len = earlier.len() as u64;
                earlier[..(len / 2 + random.below(len / 2)) as usize].to_vec()
            },
        );
        let depth = DEPTH.0 + random.below(DEPTH.1 - DEPTH.0);
        loop {
            let caller = stack.last().map_or(0, |location| location / SITES);
            // The cube makes some functions much more frequent than others.
            let at = Random(caller * CALLEES + random.below(CALLEES)).below(1 << 20);
            let callee = at * at / (1 << 20) * at / (1 << 20) * (FUNCTIONS - 1) / (1 << 20);
            stack.push(location(1 + callee, random.below(SITES)));
            if stack.len() as u64 >= depth {
                break;
            }
        }
        if distinct.insert(stack.clone()) {
            tree.push(stack);
        }
    }
    tree
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) % limit.max(1)
    }
}

/// A message of protobuf, field by field (protobuf.dev, "Encoding").
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, field: u64, value: u64) -> Self {
        varint(&mut self.0, field << 3);
        varint(&mut self.0, value);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        varint(&mut self.0, field << 3 | 2);
        varint(&mut self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn message(self, field: u64, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    fn packed(self, field: u64, numbers: &[u64]) -> Self {
        let mut bytes = Vec::with_capacity(2 * numbers.len());
        for &number in numbers {
            varint(&mut bytes, number);
        }
        self.bytes(field, &bytes)
    }
}

fn varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::{call_tree, profile};
    use crate::pprof;
    use std::collections::HashSet;

    #[test]
    fn stacks_are_distinct_and_as_many_as_asked_for() {
        let tree = call_tree(5_000);
        let distinct: HashSet<_> = tree.iter().collect();
        assert_eq!(distinct.len(), 5_000);
        assert!(tree.iter().all(|stack| (20..=60).contains(&stack.len())));
    }

    #[test]
    fn a_synthetic_profile_is_a_profile_for_go_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("synthetic.pb.gz");
        std::fs::write(&path, profile(300, 7).unwrap()).unwrap();
        let total = pprof::traced_total(&path).unwrap();
        assert!((300..=1_200).contains(&total), "{total}");
        assert_eq!(pprof::self_time(&path).unwrap().values().sum::<u64>(), total);
    }
}
