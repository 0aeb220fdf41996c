//! Programs whose files are not where their paths say.

use anyhow::{Context, Result, ensure};
use profiler_tests::profiler::record;
use profiler_tests::target::Target;
use profiler_tests::{exclusive, programs};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_program_whose_file_is_gone_keeps_its_names() -> Result<()> {
    let _guard = exclusive();
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("gone");
    fs::copy(programs::native("c_deep/c_deep.c")?.path, &copy)?;
    let target = Target::start(Command::new(&copy))?;
    fs::remove_file(&copy)?;
    all_have_names(target)
}

#[test]
fn a_program_in_a_root_of_its_own_keeps_its_names() -> Result<()> {
    let _guard = exclusive();
    let program = programs::native("c_deep/c_deep.c")?.path;
    let root = tempfile::tempdir()?;
    copy_into(root.path(), &program, Path::new("/boxed"))?;
    for library in libraries(&program)? {
        copy_into(root.path(), &library, &library)?;
    }
    let mut command = Command::new("chroot");
    command.arg(root.path()).arg("/boxed");
    let target = Target::start(command)?;
    ensure!(
        !Path::new("/boxed").exists(),
        "outside, the path must lead nowhere"
    );
    all_have_names(target)
}

/// Records the target: every stack is whole and comes from a function that it is known by.
fn all_have_names(target: Target) -> Result<()> {
    let recording = record(["-p", &target.pid().to_string(), "-F", "499", "-d", "1"])?;
    ensure!(target.finish()?.status.success());
    let stacks = recording.stacks()?;
    let named = stacks.with_frame("run") + stacks.with_frame("run_thread");
    ensure!(
        stacks.total() > 0 && named == stacks.total(),
        "{named} of {} samples have names",
        stacks.total()
    );
    let summary = recording.summary()?;
    ensure!(summary.complete()? == summary.kept()?);
    Ok(())
}

fn copy_into(root: &Path, file: &Path, place: &Path) -> Result<()> {
    let copy = root.join(place.strip_prefix("/")?);
    fs::create_dir_all(copy.parent().context("a file is in a folder")?)?;
    fs::copy(file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

/// The libraries of a program and its interpreter, by absolute path.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}
