//! Writes the seeds of every target: `fuzz-seeds FOLDER`. Prints the targets, each with the longest input that it wants.

use anyhow::{Context, Result};
use profiler_fuzz::{Samples, TARGETS};
use std::fs;
use std::path::PathBuf;

#[expect(clippy::print_stdout, reason = "its result")]
fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("usage: fuzz-seeds FOLDER")?);
    let samples = Samples::build(true)?;
    for target in TARGETS {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder)?;
        for (i, seed) in samples.of(target.name)?.iter().enumerate() {
            fs::write(folder.join(format!("seed{i}")), seed)?;
        }
        println!("{} {}", target.name, target.max_len);
    }
    Ok(())
}
