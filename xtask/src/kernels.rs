//! `cargo xtask kernels`: whether older kernels take the BPF program, and what they lack.
//!
//! Boots the kernels that Debian 12 has for virtual machines, each in a machine that is emulated, with a first file system
//! of a few files: the profiler, the libraries that it needs, and a program that starts it as process 1, prints what it
//! said, and turns the machine off. The packages are downloaded and unpacked, never installed.

mod cpio;

use crate::command::{cargo, output, run as run_command};
use crate::{host, workspace};
use anyhow::{Context, Result, bail, ensure};
use cpio::Archive;
use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A kernel, as Debian names it.
struct Kernel {
    /// The beginning of its release.
    release: &'static str,
    /// Where in Debian's archive it is.
    suite: &'static str,
    /// What recordings go without, by the names of the doctor.
    lacks: &'static [&'static str],
}

const KERNELS: &[Kernel] = &[
    Kernel {
        release: "6.1.",
        suite: "bookworm",
        lacks: &["bpf_send_signal_task"],
    },
    Kernel {
        release: "6.12.",
        suite: "bookworm-backports",
        lacks: &["bpf_send_signal_task"],
    },
];

/// The package that depends on the newest of its suite.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// What the first program says first.
const STARTED: &str = "== doctor ==";

/// An emulated machine boots and records in a minute or two.
const PATIENCE: Duration = Duration::from_secs(600);

/// Boots each kernel, and fails if one does not take a sample.
pub fn run() -> Result<()> {
    if !host::is_debian() {
        bail!("the kernels come as packages of Debian, which this system cannot unpack");
    }
    host::require(
        host::QEMU.iter().chain(host::MUSL).chain(host::C_TOOLCHAIN),
        "to boot other kernels",
    )?;
    let profiler = profiler()?;
    let folder = workspace::target_dir()?.join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file_system = folder.join("initramfs");
    fs::write(&file_system, first_file_system(&folder, &profiler)?)
        .with_context(|| format!("cannot write {}", file_system.display()))?;
    for kernel in KERNELS {
        let image = kernel.fetch(&folder.join(kernel.suite))?;
        let begun = Instant::now();
        let mut said = boot(&image, &file_system)?;
        // An emulator has faults, and kernels meet them early.
        for _ in 0..2 {
            if said.contains(STARTED) {
                break;
            }
            said = boot(&image, &file_system)?;
        }
        let n = kernel
            .judge(&said)
            .with_context(|| format!("with {}, which said:\n{said}", image.display()))?;
        println!(
            "{}: loaded, {n} samples, as was to be expected without {}; {:.0} s",
            image.file_name().unwrap_or_default().display(),
            kernel.lacks.join(", "),
            begun.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

impl Kernel {
    /// Downloads and unpacks it: the image to boot.
    fn fetch(&self, folder: &Path) -> Result<PathBuf> {
        for needed in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(needed))?;
        }
        let sources = folder.join("debian.sources");
        fs::write(
            &sources,
            format!(
                "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: {}\nComponents: main\nArchitectures: amd64\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
                self.suite
            ),
        )?;
        // The system's own lists and settings stay as they are.
        let apt = |program: &str| {
            let mut apt = Command::new(program);
            for (option, value) in [
                ("Dir::Etc::SourceList", sources.display().to_string()),
                ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
                ("Dir::State::Lists", folder.join("lists").display().to_string()),
                ("Dir::Cache", folder.join("cache").display().to_string()),
                ("APT::Sandbox::User", "root".to_owned()),
            ] {
                apt.arg("-o").arg(format!("{option}={value}"));
            }
            apt.current_dir(folder);
            apt
        };
        run_command(apt("apt-get").args(["-q", "update"]))?;
        let about = output(apt("apt-cache").args(["show", "--no-all-versions", PACKAGE]))?;
        let package = about
            .lines()
            .find_map(|line| line.strip_prefix("Depends: ")?.split(' ').next())
            .with_context(|| format!("{PACKAGE} of {} depends on no kernel", self.suite))?;
        let version = package
            .strip_prefix("linux-image-")
            .filter(|version| version.starts_with(self.release))
            .with_context(|| format!("{} has {package} and not {}x", self.suite, self.release))?;
        let image = folder.join("boot").join(format!("vmlinuz-{version}"));
        if !image.exists() {
            run_command(apt("apt-get").args(["-q", "download", package]))?;
            unpack(folder, package, version)?;
        }
        Ok(image)
    }

    /// How many samples were taken, if all is as it has to be.
    fn judge(&self, said: &str) -> Result<u64> {
        let part = |name: &str| {
            let heading = format!("== {name} ==\n");
            let rest = said.split_once(&heading).map(|(_, rest)| rest);
            rest.map(|rest| rest.split("\n== ").next().unwrap_or(rest))
                .with_context(|| format!("it did not get as far as {name}"))
        };
        ensure!(part("end")?.lines().next() == Some("0"), "the recording failed");
        let doctor = part("doctor")?;
        ensure!(
            doctor.contains("\"can_record\": true"),
            "the doctor says that it cannot record"
        );
        let lacks: Vec<&str> = doctor
            .split("\"name\": \"")
            .skip(1)
            .filter(|check| {
                check
                    .split('}')
                    .next()
                    .is_some_and(|check| check.contains("\"state\": \"lacks\""))
            })
            .filter_map(|check| check.split('"').next())
            .collect();
        for name in self.lacks {
            ensure!(
                lacks.contains(name),
                "the doctor does not name {name} but {lacks:?}"
            );
        }
        let stacks = part("stacks")?.lines().filter_map(|line| line.rsplit_once(' '));
        let of_work = stacks.filter(|(stack, _)| stack.contains(";main;outer;inner"));
        let n = of_work.filter_map(|(_, n)| n.parse::<u64>().ok()).sum();
        ensure!(n > 0, "no sample has the stack of the program");
        Ok(n)
    }
}

/// Takes the image out of the package.
fn unpack(folder: &Path, package: &str, version: &str) -> Result<()> {
    let file = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        })
        .with_context(|| format!("{package} was not downloaded"))?;
    let mut archive = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let pipe = archive.stdout.take().context("dpkg-deb has no output")?;
    let unpacked = Command::new("tar")
        .args(["-x", "-C"])
        .arg(folder)
        .arg(format!("./boot/vmlinuz-{version}"))
        .stdin(pipe)
        .status()
        .context("cannot start tar")?;
    // It may end early, as tar has what it wants.
    let _ = archive.wait();
    ensure!(
        unpacked.success(),
        "{} has no kernel: tar: {unpacked}",
        file.display()
    );
    fs::remove_file(&file)?;
    Ok(())
}

/// Where the profiler is: `PROFILER_BIN`, or built here.
fn profiler() -> Result<PathBuf> {
    if let Some(path) = env::var_os("PROFILER_BIN") {
        return Ok(path.into());
    }
    run_command(
        cargo()
            .args(["build", "--release", "--package", "profiler", "--locked"])
            .current_dir(workspace::root()),
    )?;
    Ok(workspace::target_dir()?.join("release").join("profiler"))
}

/// The profiler, what it is linked with, and the program that starts it.
fn first_file_system(folder: &Path, built: &Path) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let init = folder.join("init");
    run_command(
        Command::new("musl-gcc")
            .args([
                "-static",
                "-O2",
                "-fomit-frame-pointer",
                "-fasynchronous-unwind-tables",
                "-Wall",
                "-o",
            ])
            .arg(&init)
            .arg(workspace::root().join("xtask/src/kernels/init.c")),
    )?;
    let profiler = folder.join("profiler");
    run_command(Command::new("strip").arg("-o").args([profiler.as_path(), built]))?;
    let mut archive = Archive::default();
    archive.add("/init", &read(&init)?);
    archive.add("/profiler", &read(&profiler)?);
    let libraries = output(Command::new("ldd").arg(&profiler))?;
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        archive.add(path, &read(Path::new(path))?);
    }
    Ok(archive.finish())
}

/// Boots a kernel in a machine of its own: what that has said when it is off.
fn boot(image: &Path, file_system: &Path) -> Result<String> {
    println!("Booting {}", image.display());
    let mut machine = Command::new("qemu-system-x86_64")
        // In software: it works on every machine, inside virtual ones as well. On one thread: QEMU 7.2 emulates cmpxchg16b
        // wrong now and then where several share memory.
        .args([
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "1024",
        ])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .args(["-serial", "stdio", "-kernel"])
        .arg(image)
        .arg("-initrd")
        .arg(file_system)
        .args(["-append", "console=ttyS0 quiet loglevel=1 panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let mut output = machine.stdout.take().context("qemu has no output")?;
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).map(|_| bytes)
    });
    let begun = Instant::now();
    while machine.try_wait()?.is_none() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
    }
    let is_off = machine.try_wait()?.is_some();
    let _ = machine.kill();
    machine.wait()?;
    let said = reader
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .context("cannot read what the machine said")?;
    let said = String::from_utf8_lossy(&said).replace('\r', "");
    ensure!(
        is_off,
        "the machine was still on after {PATIENCE:?}, and had said:\n{said}"
    );
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::KERNELS;

    /// As a machine says it.
    fn said(state: &str, stacks: &str, code: &str) -> String {
        format!(
            "boot\n== doctor ==\n{{\"can_record\": true, \"checks\": [{{\"name\": \"clock\", \"state\": \"ok\"}}, \
             {{\"name\": \"bpf_send_signal_task\", \"state\": \"{state}\"}}]}}\n\n== record ==\n\n== stacks ==\n{stacks}\n\
             \n== end ==\n{code}\n[   25.2] reboot: Power down\n"
        )
    }

    #[test]
    fn only_a_kernel_that_recorded_and_is_known_for_what_it_lacks_is_good() {
        let stacks = "init;_start;main;outer;inner 7\ninit;main 1\ninit;_start;main;outer;inner;irq_[k] 2";
        let judge = |said: &str| KERNELS[0].judge(said).map_err(|error| error.to_string());
        assert_eq!(judge(&said("lacks", stacks, "0")), Ok(9));
        for bad in [
            said("ok", stacks, "0"),
            said("lacks", "init;main 1", "0"),
            said("lacks", stacks, "1"),
            "panic".to_owned(),
        ] {
            assert!(judge(&bad).is_err(), "{bad}");
        }
    }
}
