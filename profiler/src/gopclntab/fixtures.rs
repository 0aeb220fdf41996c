//! Real Go programs, built once per test process.

use bytes::Bytes;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use tempfile::TempDir;

/// The oldest supported release, one in between, and the one of this machine.
pub(crate) const TOOLCHAINS: [&str; 3] = ["go1.21.13", "go1.24.11", "local"];

/// How a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Build {
    /// For `GOTOOLCHAIN`.
    pub(crate) toolchain: &'static str,
    /// Whether the program has C in it.
    pub(crate) cgo: bool,
    /// For `-buildmode`.
    pub(crate) mode: &'static str,
    /// For `-ldflags`.
    pub(crate) ldflags: &'static str,
}

/// The ways to link the test program that put its tables in different places.
pub(crate) const FORMS: [Build; 10] = {
    const fn form(cgo: bool, mode: &'static str, ldflags: &'static str) -> Build {
        Build {
            toolchain: "local",
            cgo,
            mode,
            ldflags,
        }
    }
    [
        form(false, "exe", ""),
        form(false, "exe", "-s -w"),
        form(false, "pie", ""),
        form(false, "pie", "-s -w"),
        form(true, "exe", ""),
        form(true, "exe", "-s -w"),
        form(true, "exe", "-linkmode=external -extldflags=-static"),
        form(true, "pie", ""),
        form(true, "pie", "-s -w"),
        form(true, "c-shared", "-s -w"),
    ]
};

/// Every form with every toolchain.
pub(crate) fn builds() -> impl Iterator<Item = Build> {
    TOOLCHAINS
        .into_iter()
        .flat_map(|toolchain| FORMS.map(|form| Build { toolchain, ..form }))
}

impl Build {
    /// Whether symbols and debug information are left out.
    pub(crate) fn is_stripped(self) -> bool {
        self.ldflags == "-s -w"
    }

    /// The program.
    pub(crate) fn bytes(self) -> Bytes {
        type Slot = Arc<OnceLock<Bytes>>;
        static BUILT: LazyLock<Mutex<HashMap<Build, Slot>>> = LazyLock::new(Mutex::default);
        let slot = BUILT
            .lock()
            .expect("no builder panicked")
            .entry(self)
            .or_default()
            .clone();
        slot.get_or_init(|| self.compile()).clone()
    }

    fn compile(self) -> Bytes {
        let mut sources = vec![("main.go", include_str!("testdata/main.go"))];
        if self.cgo {
            sources.push(("cgo.go", include_str!("testdata/cgo.go")));
        }
        self.of_sources(&sources)
    }

    /// Another program, of those files, built in this way.
    pub(crate) fn of_sources(self, sources: &[(&str, &str)]) -> Bytes {
        let dir = TempDir::new().expect("temporary directory");
        let write = |name, text| std::fs::write(dir.path().join(name), text).expect("source is written");
        write("go.mod", "module example.test/answers\ngo 1.21\n");
        for (name, text) in sources {
            write(name, text);
        }
        let mut go = Command::new("go");
        // Without -trimpath the name of the directory would make each program another one.
        go.args([
            "build",
            "-trimpath",
            "-o",
            "answers",
            "-buildmode",
            self.mode,
            "-ldflags",
            self.ldflags,
        ]);
        go.env("GOTOOLCHAIN", self.toolchain)
            .env("CGO_ENABLED", if self.cgo { "1" } else { "0" })
            .current_dir(&dir);
        run(&mut go, &[]);
        std::fs::read(dir.path().join("answers"))
            .expect("program was built")
            .into()
    }

    /// Writes the program to a file in `dir` that can be executed.
    pub(crate) fn write_to(self, dir: &Path) -> PathBuf {
        write_program(&self.bytes(), dir)
    }

    /// What the program itself says of its instructions, one line each: function, file, line.
    pub(crate) fn answers(self, main: u64, addresses: &[u64]) -> Vec<String> {
        let dir = TempDir::new().expect("temporary directory");
        let program = self.write_to(dir.path());
        let mut command = Command::new(&program);
        if self.mode == "c-shared" {
            let host = dir.path().join("host");
            std::fs::write(dir.path().join("host.c"), include_str!("testdata/host.c"))
                .expect("source is written");
            run(
                Command::new("gcc")
                    .arg("host.c")
                    .arg("-o")
                    .arg(&host)
                    .arg("-ldl")
                    .current_dir(&dir),
                &[],
            );
            command = Command::new(host);
            command.arg(&program);
        }
        let mut questions = format!("{main:x}\n");
        questions.extend(addresses.iter().map(|a| format!("{a:x}\n")));
        let output = run(&mut command, questions.as_bytes());
        output.lines().map(str::to_owned).collect()
    }

    /// What `go tool nm` says: (address, name) of each function.
    pub(crate) fn nm(self) -> Vec<(u64, String)> {
        let dir = TempDir::new().expect("temporary directory");
        let program = self.write_to(dir.path());
        let mut nm = Command::new("go");
        nm.args(["tool", "nm"])
            .arg(program)
            .env("GOTOOLCHAIN", self.toolchain);
        let output = run(&mut nm, &[]);
        let fields = output.lines().filter_map(|line| {
            let (address, rest) = line.trim_start().split_once(' ')?;
            let name = rest.strip_prefix("T ").or(rest.strip_prefix("t "))?;
            Some((u64::from_str_radix(address, 16).ok()?, name.to_owned()))
        });
        fields.collect()
    }
}

/// Writes a program to a file in `dir` that can be executed. Another process does: what other tests start while we write has
/// our descriptors for a moment, and who has a program open for writing keeps others from executing it (execve(2), `ETXTBSY`).
pub(crate) fn write_program(bytes: &[u8], dir: &Path) -> PathBuf {
    let path = dir.join("answers");
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(&path);
    run(&mut install, bytes);
    path
}

/// Runs `command` and returns what it wrote.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> String {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("child is waited for")
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{errors}",
        output.status
    );
    String::from_utf8(output.stdout).expect("output is UTF-8")
}
