//! `cargo xtask fuzz`: throws bytes at everything that reads foreign bytes, guided by what code they reach.
//!
//! libFuzzer is built in (`tests/fuzz`), and the coverage that it wants is a pass of LLVM that the stable compiler can be told
//! to run. What it has learnt stays in the target directory and is where the next run goes on.

use crate::command::{cargo, output, run as run_command};
use crate::{go, host, workspace};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const HOST: &str = "x86_64-unknown-linux-gnu";

/// What cargo-fuzz gives, without the address sanitizer, which the stable compiler does not have: there is no code here that
/// only that could find fault with.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// Seconds that one input may take.
const TIMEOUT: &str = "10";
/// Memory that one input may take, in MiB.
const MEMORY: &str = "1024";

/// Runs each of `targets`, or all of them, for so many seconds, one after the other. Fails after the first that an input
/// makes panic, hang or take too much memory, and names the file with the input.
pub fn run(targets: &[String], seconds: u64) -> Result<()> {
    let why = "to build the fuzzer and its first inputs";
    host::require(host::C_TOOLCHAIN.iter().chain(host::CXX), why)?;
    go::require(why)?;
    let folder = workspace::target_dir()?.join("fuzz");
    let build = |flags: &[&str], more: &[(&str, &str)]| {
        run_command(
            cargo()
                .args(["build", "--package", "profiler-fuzz", "--locked"])
                .args(flags)
                .envs(more.iter().copied())
                .current_dir(workspace::root()),
        )
    };
    build(&["--bin", "fuzz-seeds"], &[])?;
    let seeds = workspace::target_dir()?.join("debug/fuzz-seeds");
    let known = output(Command::new(seeds).arg(folder.join("seeds")))?;
    let known: Vec<Target> = known.lines().filter_map(Target::parse).collect();
    if let Some(unknown) = targets
        .iter()
        .find(|name| known.iter().all(|target| target.name != **name))
    {
        let names: Vec<&str> = known.iter().map(|target| &*target.name).collect();
        bail!("there is no target {unknown}; there are: {}", names.join(", "));
    }
    // In a directory of its own, since nothing built with these flags is of use to anything else.
    let of_fuzzer = folder.display().to_string();
    build(
        &[
            "--bin",
            "fuzz",
            "--features",
            "libfuzzer",
            "--profile",
            "fuzz",
            "--target",
            HOST,
        ],
        &[("RUSTFLAGS", FLAGS), ("CARGO_TARGET_DIR", &of_fuzzer)],
    )?;
    let fuzzer = folder.join(HOST).join("fuzz/fuzz");
    for target in known {
        if targets.is_empty() || targets.contains(&target.name) {
            fuzz(&fuzzer, &folder, &target, seconds)?;
        }
    }
    Ok(())
}

/// A target, as the program says that writes the seeds.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    name: String,
    /// Its inputs are at most so long, in bytes.
    max_len: u32,
}

impl Target {
    /// Of a line `NAME LENGTH`.
    fn parse(line: &str) -> Option<Self> {
        let (name, max_len) = line.split_once(' ')?;
        Some(Self {
            name: name.to_owned(),
            max_len: max_len.parse().ok()?,
        })
    }
}

fn fuzz(fuzzer: &Path, folder: &Path, target: &Target, seconds: u64) -> Result<()> {
    let name = &target.name;
    let corpus = folder.join("corpus").join(name);
    let found = folder.join("found").join(name);
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    println!("== {name}, {seconds} s ==");
    let status = Command::new("nice")
        .args(["-n", "19"])
        .arg(fuzzer)
        .arg(&corpus)
        .arg(folder.join("seeds").join(name))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={}", target.max_len))
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-malloc_limit_mb={MEMORY}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-print_final_stats=1", "-verbosity=1"])
        .env("PROFILER_FUZZ_TARGET", name)
        .stdin(Stdio::null())
        .status()
        .context("cannot start the fuzzer")?;
    if !status.success() {
        bail!(
            "{name} did not survive an input, which is in {}; once mended, it goes to tests/fuzz/found/{name}",
            found.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn a_target_has_a_name_and_a_length() {
        let target = Target {
            name: "elf".to_owned(),
            max_len: 65536,
        };
        assert_eq!(Target::parse("elf 65536"), Some(target));
        assert_eq!(Target::parse("elf"), None);
    }
}
