//! `cargo xtask bpf`: the BPF object that the profiler embeds.
//!
//! Building it takes tools that a user of the profiler should not need, so the built object is kept in the
//! repository. Beside it lies the record of the sources that it was built from, which shows whether the two
//! still fit; that check needs no tools.

mod sources;
mod toolchain;

use crate::command::run;
use crate::workspace;
use anyhow::{Context, Result, bail};
use sources::Record;
use std::fs;
use std::path::{Path, PathBuf};
use toolchain::Toolchain;

/// The release of bpf-linker that links the object.
const LINKER_VERSION: &str = "0.13.0";

/// What decides about the object besides its sources and the profile `bpf`: BTF, without which the verifier
/// cannot name source lines.
const FLAGS: &[&str] = &["-Clinker=bpf-linker", "-Clink-arg=--btf"];

const TARGET: &str = "bpfel-unknown-none";

fn object_path() -> PathBuf {
    workspace::root().join("profiler/bpf/profiler.bpf.o")
}

fn record_path() -> PathBuf {
    workspace::root().join("profiler/bpf/profiler.bpf.sources")
}

/// Fails if the object in the repository is not the one that its sources, as they are now, were built into.
pub fn check() -> Result<()> {
    let path = record_path();
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}: run `cargo xtask bpf` and commit what it writes",
            path.display()
        )
    })?;
    let object =
        fs::read(object_path()).with_context(|| format!("cannot read {}", object_path().display()))?;
    let differences = Record::parse(&text)?.differences(&Record::of_sources(workspace::root(), &object)?);
    if differences.is_empty() {
        println!("profiler/bpf/profiler.bpf.o fits its sources");
        return Ok(());
    }
    for difference in &differences {
        println!("{difference}");
    }
    bail!(
        "profiler/bpf/profiler.bpf.o does not fit its sources: run `cargo xtask bpf` and commit what it writes"
    );
}

/// Builds the object and records its sources.
pub fn build() -> Result<()> {
    let root = workspace::root();
    let toolchain = Toolchain::require()?;
    println!("Building the BPF object with {toolchain}");
    let built = compile(&toolchain)?;
    let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let record = Record::of_sources(root, &object)?.to_string();

    let changed = write_if_changed(&object_path(), &object)?;
    write_if_changed(&record_path(), record.as_bytes())?;
    println!(
        "profiler/bpf/profiler.bpf.o: {} bytes, {}",
        object.len(),
        if changed { "changed" } else { "as it was" }
    );
    Ok(())
}

fn compile(toolchain: &Toolchain) -> Result<PathBuf> {
    let root = workspace::root();
    // Not the user's target directory: clones can share that, and cargo then takes what another clone built from
    // other sources for this one's if it is newer than these.
    let target_dir = root.join("target/bpf");
    let mut flags: Vec<String> = FLAGS.iter().map(|&flag| flag.to_owned()).collect();
    for (from, to) in toolchain.path_prefixes(root)? {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    run(toolchain
        .cargo()?
        .args([
            "build",
            "--locked",
            "--package",
            "profiler-ebpf",
            "--bin",
            "profiler-bpf",
        ])
        .args([
            "--profile",
            "bpf",
            "--target",
            TARGET,
            "-Zbuild-std=core",
            "--target-dir",
        ])
        .arg(&target_dir)
        // Not RUSTFLAGS, which would cut a path at its spaces.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .current_dir(root))?;

    // BTF has all that the verifier shows; DWARF is needed to make it, and is most of the file.
    let linked = target_dir.join(TARGET).join("bpf/profiler-bpf");
    let stripped = linked.with_extension("o");
    run(toolchain
        .objcopy()?
        .arg("--strip-debug")
        .arg(&linked)
        .arg(&stripped))?;
    Ok(stripped)
}

/// Leaves a file that is right alone, so that cargo does not rebuild what embeds it. Says whether it was wrong.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(false);
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}
