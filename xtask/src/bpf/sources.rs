//! The record of what a BPF object was built from: a line for each thing, so that a difference has a name.

use super::{FLAGS, LINKER_VERSION};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

/// Directories whose Rust files become the object.
const DIRECTORIES: [&str; 2] = ["profiler-ebpf/src", "profiler/abi/src"];
const MANIFESTS: [&str; 2] = ["profiler-ebpf/Cargo.toml", "profiler/abi/Cargo.toml"];
/// The section of the root manifest that says how the object is optimized.
const PROFILE: &str = "[profile.bpf]";
/// Crates from elsewhere whose code is in the object: those whose names begin like this.
const CRATES: [&str; 2] = ["aya-ebpf", "zerocopy"];

const HEADER: &str = "\
# What profiler.bpf.o beside this file was built from, and its own digest. Written by `cargo xtask bpf`.
# `cargo xtask bpf --check` compares it with the sources as they are.
";

/// What an object was built from: names, each with a digest or a version.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record(BTreeMap<String, String>);

impl Record {
    /// The record of `object`, if it is built from the sources as they are.
    pub fn of_sources(root: &Path, object: &[u8]) -> Result<Self> {
        let mut record = Self::default();
        for directory in DIRECTORIES {
            record.add_directory(root, directory)?;
        }
        for manifest in MANIFESTS {
            record.add_file(root, manifest)?;
        }
        let manifest = read(root, "Cargo.toml")?;
        record.add(
            format!("Cargo.toml {PROFILE}"),
            digest(section(&manifest, PROFILE).as_bytes()),
        );
        for (name, version) in locked(&read(root, "Cargo.lock")?) {
            if CRATES.iter().any(|prefix| name.starts_with(prefix)) {
                record.add(format!("Cargo.lock {name}"), version);
            }
        }
        record.add("bpf-linker".to_owned(), LINKER_VERSION.to_owned());
        record.add("flags".to_owned(), FLAGS.join(" "));
        record.add("profiler.bpf.o".to_owned(), digest(object));
        Ok(record)
    }

    /// Reads what `to_string` wrote.
    pub fn parse(text: &str) -> Result<Self> {
        let mut record = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (value, name) = line.split_once("  ").with_context(|| {
                format!("the record of the BPF object's sources has a strange line: {line:?}")
            })?;
            record.add(name.to_owned(), value.to_owned());
        }
        Ok(record)
    }

    /// What has changed from `self` to `now`, a sentence each.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (name, value) in &self.0 {
            match now.0.get(name) {
                None => differences.push(format!("{name} is gone")),
                Some(new) if new != value => differences.push(format!("{name} has changed")),
                Some(_) => {}
            }
        }
        let new = now.0.keys().filter(|name| !self.0.contains_key(*name));
        differences.extend(new.map(|name| format!("{name} is new")));
        differences
    }

    fn add(&mut self, name: String, value: String) {
        self.0.insert(name, value);
    }

    fn add_file(&mut self, root: &Path, name: &str) -> Result<()> {
        self.add(name.to_owned(), digest(read(root, name)?.as_bytes()));
        Ok(())
    }

    fn add_directory(&mut self, root: &Path, name: &str) -> Result<()> {
        let path = root.join(name);
        let cannot = || format!("cannot read {}", path.display());
        for entry in fs::read_dir(&path).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let inner = format!("{name}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().with_context(cannot)?.is_dir() {
                self.add_directory(root, &inner)?;
            } else if inner.ends_with(".rs") {
                self.add_file(root, &inner)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        self.0
            .iter()
            .try_for_each(|(name, value)| writeln!(f, "{value}  {name}"))
    }
}

fn read(root: &Path, name: &str) -> Result<String> {
    let path = root.join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn digest(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// The settings of a section of a manifest, without comments.
fn section(manifest: &str, header: &str) -> String {
    let lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != header)
        .skip(1);
    let settings = lines.take_while(|line| !line.starts_with('['));
    settings
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Names and versions in a lock file.
fn locked(lock: &str) -> Vec<(String, String)> {
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
    let mut packages = Vec::new();
    let mut name = None;
    for line in lock.lines() {
        name = value(line, "name = ").or(name);
        if let Some(version) = value(line, "version = ") {
            packages.extend(name.take().map(|name| (name, version)));
        }
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::{Record, locked, section};

    fn record(entries: &[(&str, &str)]) -> Record {
        Record(
            entries
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn a_record_comes_back_from_its_text() {
        let it = record(&[
            ("Cargo.toml [profile.bpf]", "12ab"),
            ("flags", "-Cone -Ctwo"),
            ("src/main.rs", "34cd"),
        ]);
        assert_eq!(Record::parse(&it.to_string()).unwrap(), it);
    }

    #[test]
    fn each_difference_has_a_name() {
        let before = record(&[("gone.rs", "1"), ("main.rs", "2"), ("same.rs", "3")]);
        let now = record(&[("main.rs", "4"), ("new.rs", "5"), ("same.rs", "3")]);
        assert_eq!(
            before.differences(&now),
            ["gone.rs is gone", "main.rs has changed", "new.rs is new"]
        );
        assert!(now.differences(&now).is_empty());
    }

    #[test]
    fn comments_and_other_sections_do_not_count() {
        let manifest =
            "[profile.release]\ndebug = 1\n\n# why\n[profile.bpf]\n# how\nlto = true\n\n[other]\nlto = 1\n";
        assert_eq!(section(manifest, "[profile.bpf]"), "lto = true");
    }

    #[test]
    fn versions_are_read_from_the_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\ndependencies = [\n \"aya\",\n]\n";
        assert_eq!(locked(lock), [("aya-ebpf".to_owned(), "0.2.1".to_owned())]);
    }
}
