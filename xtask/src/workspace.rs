//! Where things are.

use anyhow::{Context, Result};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The root of the repository.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        // `cargo run` says where this package is now. Where it was compiled can be another clone that shares the
        // target directory.
        let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let package = PathBuf::from(package);
        package.parent().map_or(package.clone(), Path::to_path_buf)
    });
    &ROOT
}

/// The directory that cargo builds into, wherever the user's configuration has put it: this program is in
/// `<target>/<profile>/`.
pub fn target_dir() -> Result<PathBuf> {
    let me = env::current_exe().context("cannot find the path of xtask itself")?;
    me.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in a target directory of cargo", me.display()))
}
