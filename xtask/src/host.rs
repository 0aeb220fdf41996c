//! What the machine has, and how it gets what it lacks.

use crate::command::{answers, run};
use anyhow::{Result, bail};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Something that the system's package manager provides.
pub struct Package {
    /// Its name in Debian and Ubuntu.
    pub debian: &'static str,
    /// What to look for on other systems.
    pub elsewhere: &'static str,
    /// Whether it is there; asked only where there is no dpkg that knows.
    pub present: fn() -> bool,
}

/// What building programs that mix Go and C takes, besides Go.
pub const C_TOOLCHAIN: &[Package] = &[
    Package {
        debian: "gcc",
        elsewhere: "gcc",
        present: || answers("gcc", &["--version"]),
    },
    Package {
        debian: "libc6-dev",
        elsewhere: "the headers of the C library",
        present: || has_header("stdio.h"),
    },
];

/// What programs in C++ take besides.
pub const CXX: &[Package] = &[Package {
    debian: "g++",
    elsewhere: "g++",
    present: || answers("g++", &["--version"]),
}];

/// What programs are linked with that have another C library.
pub const MUSL: &[Package] = &[Package {
    debian: "musl-tools",
    elsewhere: "musl with its compiler wrapper (musl-gcc)",
    present: || answers("musl-gcc", &["--version"]),
}];

/// What takes debug information apart, and packs it.
pub const DEBUG_FILES: &[Package] = &[
    Package {
        debian: "binutils",
        elsewhere: "binutils, with zstd",
        present: || answers("dwp", &["--version"]),
    },
    Package {
        debian: "dwz",
        elsewhere: "dwz",
        present: || answers("dwz", &["--version"]),
    },
    Package {
        debian: "xz-utils",
        elsewhere: "xz",
        present: || answers("xz", &["--version"]),
    },
];

/// What boots kernels other than the machine's own.
pub const QEMU: &[Package] = &[Package {
    debian: "qemu-system-x86",
    elsewhere: "QEMU for x86-64",
    present: || answers("qemu-system-x86_64", &["--version"]),
}];

/// What reads manual pages.
pub const GROFF: &[Package] = &[Package {
    debian: "groff-base",
    elsewhere: "groff",
    present: || answers("groff", &["--version"]),
}];

/// What the demo target is linked with.
pub const SQLITE: &[Package] = &[Package {
    debian: "libsqlite3-dev",
    elsewhere: "SQLite's header and library (sqlite-devel, sqlite)",
    present: || has_header("sqlite3.h"),
}];

/// Makes sure that packages are installed. `why` completes "they are needed …".
pub fn require<'a>(packages: impl IntoIterator<Item = &'a Package>, why: &str) -> Result<()> {
    let packages = packages.into_iter();
    if is_debian() {
        let names: Vec<_> = packages.map(|package| package.debian).collect();
        return require_debian(&names, why);
    }
    let missing: Vec<_> = packages.filter(|p| !(p.present)()).map(|p| p.elsewhere).collect();
    if !missing.is_empty() {
        bail!(
            "cannot install packages on this system, which is not Debian or Ubuntu. Install these, needed {why}: {}",
            missing.join("; ")
        );
    }
    Ok(())
}

/// Makes sure that packages of Debian are installed, on a Debian system. `why` completes "they are needed …".
pub fn require_debian(packages: &[&str], why: &str) -> Result<()> {
    let missing = missing_debian(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_root() {
        bail!("packages are missing that are needed {why}. Install them: sudo apt-get install {list}");
    }
    println!("Installing packages needed {why}: {list}");
    run(Command::new("apt-get").args(["update", "-q"]))?;
    // Each is asked for by itself, so that the message names the one that the release does not have.
    for package in &missing {
        if !answers("apt-cache", &["show", "--no-all-versions", package]) {
            bail!("this release of the system has no package {package}, which is needed {why}");
        }
    }
    run(Command::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args([
            "install",
            "-q",
            "-y",
            "--no-install-recommends",
            // A package that would drive out another is for the owner of the machine to decide.
            "--no-remove",
            "-o",
            "DPkg::Lock::Timeout=300",
        ])
        .args(&missing))
}

fn missing_debian<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    // The status is not asked for: dpkg-query fails if it does not know one of the packages.
    let known = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output()?;
    Ok(not_installed(packages, &String::from_utf8_lossy(&known.stdout)))
}

/// Those of `packages` that dpkg's list does not call installed; a removed package can leave its name there.
fn not_installed<'a>(packages: &[&'a str], known: &str) -> Vec<&'a str> {
    let installed = |package: &str| {
        known
            .lines()
            .any(|line| line.split_once(' ') == Some((package, "installed")))
    };
    packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect()
}

/// Whether packages come from apt.
pub fn is_debian() -> bool {
    answers("dpkg-query", &["--version"]) && answers("apt-get", &["--version"])
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    // The kernel gives a process's directory to the process's effective user.
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// Fails unless this is root. `why` completes "it needs root …".
pub fn require_root(task: &str, why: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "`cargo xtask {task}` needs root {why}. Run: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {task}"
    );
}

fn has_header(name: &str) -> bool {
    answers("gcc", &["-E", "-include", name, "-x", "c", "/dev/null"])
}

#[cfg(test)]
mod tests {
    use super::not_installed;

    #[test]
    fn a_package_is_missing_if_dpkg_does_not_know_it_or_only_remembers_it() {
        let known = "gcc installed\nlibsqlite3-dev config-files\n";
        assert_eq!(
            not_installed(&["gcc", "libsqlite3-dev", "zlib1g-dev"], known),
            ["libsqlite3-dev", "zlib1g-dev"]
        );
    }
}
