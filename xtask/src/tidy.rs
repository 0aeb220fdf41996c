//! `cargo xtask tidy`: rules of the repository that no other tool knows.

mod rules;

use crate::command::output;
use crate::workspace;
use anyhow::{Context, Result, bail};
use rules::Finding;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Fails if a rule is broken, after naming every place.
pub fn run() -> Result<()> {
    let root = workspace::root();
    let mut n_files = 0;
    let mut findings = Vec::new();
    for path in repository_files(root)? {
        // A file that is not text has no lines to find fault with, and one that is gone none at all.
        let Ok(text) = fs::read_to_string(root.join(&path)) else {
            continue;
        };
        n_files += 1;
        findings.extend(rules::check_file(&path, &text));
    }
    let map = "ARCHITECTURE.md";
    let text = fs::read_to_string(root.join(map)).with_context(|| format!("cannot read {map}"))?;
    findings.extend(rules::check_code_map(
        map,
        &text,
        &modules(&root.join("profiler/src"))?,
    ));

    for Finding { path, line, rule } in &findings {
        println!("{path}:{line}: {rule}");
    }
    if !findings.is_empty() {
        bail!("{} places break the rules of the repository", findings.len());
    }
    println!("{n_files} files keep the rules of the repository");
    Ok(())
}

/// The files that are, or are about to be, in the repository.
fn repository_files(root: &Path) -> Result<Vec<String>> {
    let list = output(
        Command::new("git")
            // The clone may belong to another user than root, which git takes for a danger.
            .args([
                "-c",
                "safe.directory=*",
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ])
            .current_dir(root),
    )
    .context("cannot list the files of the repository")?;
    Ok(list.split_terminator('\0').map(str::to_owned).collect())
}

/// The modules of the profiler as the code map names them: `file.rs` or `folder/`.
fn modules(source: &Path) -> Result<BTreeSet<String>> {
    let cannot = || format!("cannot read {}", source.display());
    let mut modules = BTreeSet::new();
    for entry in fs::read_dir(source).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().with_context(cannot)?.is_dir() {
            modules.insert(name + "/");
        } else if name.ends_with(".rs") {
            modules.insert(name);
        }
    }
    Ok(modules)
}
