//! A real program with hooks.

use super::sys;
use crate::addr::{Avma, Bias, Svma};
use crate::gopclntab::Pclntab;
use crate::hooks::Table;
use crate::inject::{Accept, GoPlan, Plan, Runtime};
use crate::target::calls::SystemCalls;
use crate::target::go::threads::Threads;
use crate::target::go::{GoRuntime, TlsG};
use crate::target::process::Process;
use crate::target::status::Status;
use bytes::Bytes;
use object::{Object, ObjectSymbol};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(super) const TOOLCHAINS: [&str; 3] = ["go1.21.13", "go1.24.11", "local"];

/// What the signals of the tests carry, and where.
pub(super) const COOKIE: u64 = 0x5ca1_0000_0000_0000;
const COOKIE_MASK: u64 = 0xffff_0000_0000_0000;

/// `SI_QUEUE`: a process cannot send `SI_KERNEL`.
const ACCEPT: Accept = Accept {
    si_code: -1,
    cookie_mask: COOKIE_MASK,
    cookie: COOKIE,
};

/// How long to wait for what comes and goes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The program, built once with each toolchain.
pub(super) fn program(toolchain: &'static str) -> PathBuf {
    static BUILT: LazyLock<Mutex<BTreeMap<&'static str, TempDir>>> = LazyLock::new(Mutex::default);
    let mut built = BUILT.lock().expect("no builder panicked");
    let dir = built.entry(toolchain).or_insert_with(|| {
        let dir = TempDir::new().expect("temporary directory");
        let write = |name, text| std::fs::write(dir.path().join(name), text).expect("source is written");
        write("go.mod", "module example.test/hooks\ngo 1.21\n");
        write("main.go", include_str!("testdata/main.go"));
        write("hooks.c", include_str!("testdata/hooks.c"));
        write("hooks.h", include_str!("testdata/hooks.h"));
        let mut go = Command::new("go");
        go.args(["build", "-o", "hooks"])
            .env("GOTOOLCHAIN", toolchain)
            .current_dir(&dir);
        crate::gopclntab::fixtures::run(&mut go, &[]);
        dir
    });
    dir.path().join("hooks")
}

/// The worker that the thread is that Go does not know.
pub(super) const STRANGER: u64 = 9;

/// The program, running.
pub(super) struct Target {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Worker by thread.
    pub(super) workers: BTreeMap<u32, u64>,
    /// A thread that Go does not know.
    pub(super) stranger: u32,
    /// What is known of it.
    pub(super) plan: Plan,
}

impl Target {
    pub(super) fn start(toolchain: &'static str) -> Self {
        Self::run(&mut Command::new(program(toolchain)))
    }

    pub(super) fn run(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (workers, stranger) = introduction(&mut output);
        let plan = plan(child.id());
        Self {
            child,
            output,
            workers,
            stranger,
            plan,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn process(&self) -> Process {
        Process::open(self.pid()).expect("it runs")
    }

    /// What is known of its Go runtime.
    pub(super) fn go(&mut self) -> &mut GoPlan {
        match &mut self.plan.runtime {
            Runtime::Go(go) => go,
            Runtime::Table(_) => panic!("it is a Go program"),
        }
    }

    /// Ends its work, of which it has checked all results.
    pub(super) fn finish(mut self) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("text");
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "{status}: {rest}");
        let rounds = rest
            .trim()
            .strip_prefix("rounds ")
            .unwrap_or_else(|| panic!("{rest:?}"));
        assert!(rounds.parse::<u64>().expect("a number") > 0);
    }

    /// The next line that it prints.
    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line
    }

    /// Makes it ignore signal 63.
    pub(super) fn ignore(&mut self) {
        self.tell("ignore");
        assert_eq!(self.line(), "ignored\n");
    }

    /// Makes it execute its program again.
    pub(super) fn exec(&mut self) {
        self.tell("exec");
        (self.workers, self.stranger) = introduction(&mut self.output);
    }

    pub(super) fn tell(&mut self, what: &str) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        writeln!(input, "{what}").expect("it reads");
    }

    /// Where its variable `name` is.
    pub(super) fn variable(&self, name: &str) -> Avma {
        let data = std::fs::read(format!("/proc/{}/exe", self.pid())).expect("the program");
        let object = object::File::parse(&*data).expect("an ELF file");
        Avma(object.symbol_by_name(name).expect("a symbol").address())
    }

    /// Sets its variable `name`, an int.
    pub(super) fn set(&self, name: &str, value: i32) {
        let memory = File::options()
            .write(true)
            .open(format!("/proc/{}/mem", self.pid()));
        let written = memory
            .expect("its memory")
            .write_all_at(&value.to_le_bytes(), self.variable(name).0);
        written.expect("it can be written");
    }

    /// Its variable `name`, an int.
    pub(super) fn get(&self, name: &str) -> i32 {
        let bytes = self
            .process()
            .memory(self.variable(name).0, 4)
            .expect("it can be read");
        i32::from_le_bytes(bytes.try_into().expect("four bytes"))
    }

    /// Stops all its threads.
    pub(super) fn stop(&self) {
        self.kill(Signal::STOP);
        let process = self.process();
        let is_stopped = |tid| process.status(tid).is_some_and(|status| status.is_stopped());
        while !process.tids().into_iter().all(is_stopped) {
            std::thread::yield_now();
        }
    }

    /// Whether `signal` waits for each worker.
    pub(super) fn all_have_pending(&self, signal: u32) -> bool {
        let process = self.process();
        let pending = |&tid: &u32| process.status(tid).map_or(0, |status| status.pending);
        self.workers
            .keys()
            .all(|tid| pending(tid) & 1 << (signal - 1) != 0)
    }

    /// Lets them go on.
    pub(super) fn go_on(&self) {
        self.kill(Signal::CONT);
    }

    fn kill(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("an id");
        kill_process(pid, signal).expect("it is ours");
    }

    /// Sends `signal` to a thread, as the kernel would.
    pub(super) fn send(&self, tid: u32, signal: u32, value: u64) -> std::io::Result<()> {
        sys::queue_signal(self.pid(), tid, signal, ACCEPT.si_code, value)
    }

    /// Checks that the state is as it was. What comes and goes is looked at again.
    pub(super) fn assert_state(&self, before: &State) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.state();
            if now == *before {
                return;
            }
            assert!(Instant::now() < deadline, "before: {before:#?}\nnow: {now:#?}");
            std::thread::yield_now();
        }
    }

    /// What must be the same before and after us, at a moment at which no worker is about to handle, or handles, the signal
    /// that Go's runtime sends to its own threads at any time: that one waits then, or is blocked.
    pub(super) fn state(&self) -> State {
        const SIGURG: u64 = 1 << 22;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state_now();
            let mut masks = state.pending.values().chain(state.blocked.values());
            if masks.all(|mask| mask & SIGURG == 0) || Instant::now() > deadline {
                return state;
            }
            std::thread::yield_now();
        }
    }

    fn state_now(&self) -> State {
        let process = self.process();
        let maps = process.maps().expect("maps");
        let leader = process.status(self.pid()).expect("it runs");
        let of_threads = |set: fn(&Status) -> u64| {
            process
                .tids()
                .into_iter()
                .filter(|tid| self.workers.contains_key(tid))
                .filter_map(|tid| Some((tid, set(&process.status(tid)?))))
                .collect()
        };
        let children = process
            .tids()
            .into_iter()
            .filter_map(|tid| {
                let ids = std::fs::read_to_string(format!("/proc/{}/task/{tid}/children", self.pid()));
                Some(ids.ok()?.split_whitespace().count())
            })
            .sum();
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("descriptors")
            .flatten();
        State {
            executable: maps
                .iter()
                .filter(|map| map.executable || map.name.contains("memfd"))
                .map(|map| (map.start, map.end, map.name.clone()))
                .collect(),
            caught: leader.caught,
            ignored: leader.ignored,
            tracer: leader.tracer,
            blocked: of_threads(|status| status.blocked),
            pending: of_threads(|status| status.pending),
            children,
            descriptors: descriptors
                .map(|entry| (entry.file_name(), std::fs::read_link(entry.path()).ok()))
                .map(|entry| format!("{entry:?}"))
                .collect(),
        }
    }
}

/// Reads who works on which thread; the stranger comes apart.
fn introduction(output: &mut impl BufRead) -> (BTreeMap<u32, u64>, u32) {
    let mut workers = BTreeMap::new();
    loop {
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let Some((who, tid)) = line.trim().split_once(' ') else {
            break;
        };
        let (who, tid) = (who.parse().expect("a worker"), tid.parse().expect("a thread"));
        if who == STRANGER {
            return (workers, tid);
        }
        workers.insert(tid, who);
    }
    panic!("no stranger");
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    executable: BTreeSet<(u64, u64, String)>,
    pub(super) caught: u64,
    pub(super) ignored: u64,
    tracer: u32,
    blocked: BTreeMap<u32, u64>,
    pending: BTreeMap<u32, u64>,
    /// How many, the dead included.
    children: usize,
    descriptors: BTreeSet<String>,
}

/// What the symbols of the running program say.
pub(super) fn plan(pid: u32) -> Plan {
    let data = Bytes::from(std::fs::read(format!("/proc/{pid}/exe")).expect("the program"));
    if let Some(Svma(table)) = Table::find(&data).expect("an ELF file") {
        let process = Process::open(pid).expect("it runs");
        return Plan {
            traceback: Avma(table + Table::TRACEBACK),
            symbolizer: Avma(table + Table::SYMBOLIZER),
            errno_location: Some(errno_location(pid)),
            accept: ACCEPT,
            runtime: Runtime::Table(SystemCalls::find(&process).expect("it has a libc")),
        };
    }
    let object = object::File::parse(&*data).expect("an ELF file");
    let pclntab = Pclntab::find(&object, &data).expect("no error").expect("a table");
    let runtime = GoRuntime::find(&object, &data, &pclntab)
        .expect("no error")
        .expect("a runtime");
    // The program is not position independent.
    let address = |name| object.symbol_by_name(name).map(|symbol| Avma(symbol.address()));
    let needed = |name| address(name).unwrap_or_else(|| panic!("no {name}"));
    let futex = pclntab
        .functions_named("runtime.futex")
        .find(|function| !function.is_wrapper())
        .expect("a function");
    let (Svma(start), Svma(end)) = (futex.entry(), futex.end());
    let minor = runtime.version.as_ref().expect("a version").minor;
    let TlsG::Fixed(tls_g) = runtime.tls else {
        panic!("an executable")
    };
    Plan {
        traceback: needed("runtime.cgoTraceback"),
        symbolizer: needed("runtime.cgoSymbolizer"),
        errno_location: Some(errno_location(pid)),
        accept: ACCEPT,
        runtime: Runtime::Go(Box::new(GoPlan {
            futex: Avma(start)..Avma(end),
            tls_g,
            layout: runtime.layout,
            g_stack_lo: 0,
            m_procid: if minor < 25 { 72 } else { 64 },
            m_lockedg: match minor {
                21 => 352,
                22 | 23 => 344,
                24 => 368,
                25 => 360,
                _ => 384,
            },
            exit: address("runtime.exit.abi0").unwrap_or_else(|| needed("runtime.exit")),
            callers: needed("_cgo_callers"),
            call_traceback: address("x_cgo_call_traceback_function"),
            signal_handlers: [
                "runtime.cgoSigtramp.abi0",
                "runtime.cgoSigtramp",
                "runtime.sigtramp.abi0",
                "runtime.sigtramp",
            ]
            .into_iter()
            .filter_map(address)
            .collect(),
            async_preempt: address("runtime.asyncPreempt.abi0").or_else(|| address("runtime.asyncPreempt")),
            threads: Some((
                Threads::find(&object, &data, &pclntab, &runtime).expect("a list"),
                Bias(0),
            )),
        })),
    }
}

fn errno_location(pid: u32) -> Avma {
    let maps = Process::open(pid).expect("it runs").maps().expect("maps");
    let libc = maps
        .iter()
        .find(|map| map.name.contains("/libc.so") && map.offset == 0)
        .expect("a libc");
    let data = std::fs::read(&libc.name).expect("the libc");
    let object = object::File::parse(&*data).expect("an ELF file");
    let mut symbols = object.dynamic_symbols();
    let symbol = symbols
        .find(|symbol| symbol.name() == Ok("__errno_location"))
        .expect("a symbol");
    Avma(libc.start + symbol.address())
}
