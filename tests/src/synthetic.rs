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

/// One run of a program.
#[derive(Clone, Debug)]
pub struct Run {
    /// Distinct stacks. Runs with as many have the same ones.
    pub stacks: usize,
    /// Runs differ in how often each was seen, and in when they began: a minute after the one before.
    pub seed: u64,
    /// How often everything is seen: between 8 and 10 times this.
    pub weight: u64,
    /// Of each so many stacks one is not whole; none if 0.
    pub cut: usize,
    /// The package of its functions.
    pub package: &'static str,
    /// What its two values are, each with its unit.
    pub types: [(&'static str, &'static str); 2],
    /// Nanoseconds from sample to sample.
    pub period: u64,
    /// As the profiler notes facts: `fact.NAME=VALUE`.
    pub comments: Vec<String>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            stacks: 1_000,
            seed: 0,
            weight: 4,
            cut: 0,
            package: "bench",
            types: [("samples", "count"), ("cpu", "nanoseconds")],
            period: 1_000_000,
            comments: Vec::new(),
        }
    }
}

impl Run {
    /// The run as a pprof file in gzip.
    ///
    /// # Errors
    /// None that a compressor in memory is known to have; its type demands one.
    pub fn write(&self) -> Result<Vec<u8>> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&self.message().0)?;
        Ok(gzip.finish()?)
    }

    /// Field numbers are those of github.com/google/pprof, proto/profile.proto.
    fn message(&self) -> Message {
        let mut strings = vec![String::new()];
        let mut string = |text: &str| {
            strings.push(text.to_owned());
            (strings.len() - 1) as u64
        };
        let types = self
            .types
            .map(|(name, unit)| Message::default().number(1, string(name)).number(2, string(unit)));
        let mut file = Message::default().message(1, &types[0]).message(1, &types[1]);
        let [thread, worker, tid, pid, stop, no_rule] =
            ["thread", "worker", "tid", "pid", "stop", "no-rule"].map(&mut string);
        let mut counts = Random(self.seed.wrapping_add(1) << 32);
        for (at, stack) in call_tree(self.stacks).iter().enumerate() {
            let locations: Vec<u64> = stack.iter().rev().copied().collect();
            let count = (8 + counts.below(3)) * self.weight;
            let mut labels = vec![(thread, 2, worker), (tid, 3, 100 + at as u64 % 4), (pid, 3, 100)];
            if self.cut > 0 && at % self.cut == 0 {
                labels.push((stop, 2, no_rule));
            }
            let sample = Message::default()
                .packed(1, &locations)
                .packed(2, &[count, count * self.period]);
            let sample = labels.iter().fold(sample, |sample, &(key, field, value)| {
                sample.message(3, &Message::default().number(1, key).number(field, value))
            });
            file = file.message(2, &sample);
        }
        let binary = Message::default()
            .number(1, 1)
            .number(2, 0x40_0000)
            .number(3, 0x80_0000)
            .number(5, string("/usr/bin/bench"));
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
            let part = format!("{}/part{}", self.package, function % 40);
            let name = string(&format!("example.com/{part}.(*Worker).step{function}"));
            let path = string(&format!("/src/{part}/step{function}.go"));
            let function = Message::default()
                .number(1, function)
                .number(2, name)
                .number(3, name)
                .number(4, path)
                .number(5, 9);
            file = file.message(5, &function);
        }
        file = file
            .number(9, 1_700_000_000_000_000_000 + self.seed * 60_000_000_000)
            .number(10, 30_000_000_000)
            .message(11, &types[1])
            .number(12, self.period);
        for comment in &self.comments {
            file = file.number(13, string(comment));
        }
        strings
            .iter()
            .fold(file, |file, text| file.bytes(6, text.as_bytes()))
    }
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
    use super::{Run, call_tree};
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
        std::fs::write(
            &path,
            Run {
                stacks: 300,
                ..Run::default()
            }
            .write()
            .unwrap(),
        )
        .unwrap();
        let total = pprof::traced_total(&path).unwrap();
        assert!((9_600..=12_000).contains(&total), "{total}");
        assert_eq!(pprof::self_time(&path).unwrap().values().sum::<u64>(), total);
    }
}
