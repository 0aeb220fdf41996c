//! Where things are.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The directory that cargo builds into, wherever the user's configuration has put it: this program is in
/// `<target>/<profile>/`.
pub fn target_dir() -> Result<PathBuf> {
    let me = std::env::current_exe().context("cannot find the path of xtask itself")?;
    me.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in a target directory of cargo", me.display()))
}
