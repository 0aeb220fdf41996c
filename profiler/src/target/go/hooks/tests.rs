use super::super::GoRuntime;
use super::super::threads::{self, Thread, Threads};
use super::{Error, HookVariables, Hooks, SYMBOLS};
use crate::addr::{Avma, Bias, Svma};
use crate::gopclntab::fixtures::{Build, FORMS, TOOLCHAINS, run, write_program};
use crate::gopclntab::{Image, Pclntab};
use crate::target::go::Source;
use crate::target::process::Process;
use bytes::Bytes;
use object::{Object, ObjectSegment, ObjectSymbol};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use tempfile::TempDir;

/// The forms with cgo, in all of [`TOOLCHAINS`].
fn builds() -> impl Iterator<Item = Build> {
    let forms = FORMS.into_iter().filter(|form| form.cgo);
    forms.flat_map(|form| TOOLCHAINS.map(|toolchain| Build { toolchain, ..form }))
}

/// The program in `testdata/hooks.go`.
fn program(build: Build) -> Bytes {
    static BUILT: LazyLock<Mutex<HashMap<Build, Bytes>>> = LazyLock::new(Mutex::default);
    BUILT
        .lock()
        .expect("no builder panicked")
        .entry(build)
        .or_insert_with(|| build.of_sources(&[("main.go", include_str!("../testdata/hooks.go"))]))
        .clone()
}

/// What is found in a program.
fn found(data: &Bytes) -> (Result<Option<HookVariables>, Error>, Result<Threads, Error>) {
    let object = object::File::parse(&**data).expect("an ELF file");
    let table = Pclntab::find(&object, data).expect("no error").expect("a table");
    let go = GoRuntime::find(&object, data, &table)
        .expect("no error")
        .expect("a runtime");
    (
        HookVariables::find(&object, data, &table, &go),
        Threads::find(&object, data, &table, &go),
    )
}

fn symbol(object: &object::File<'_>, name: &str) -> Option<Svma> {
    Some(Svma(object.symbol_by_name(name)?.address()))
}

#[test]
fn code_and_symbols_agree_in_every_form_of_every_release() {
    for build in builds() {
        let data = program(build);
        let (hooks, threads) = found(&data);
        let hooks = hooks
            .unwrap_or_else(|e| panic!("{build:?}: {e}"))
            .expect("it can register hooks");
        threads.unwrap_or_else(|e| panic!("{build:?}: {e}"));

        // What `find` compared with the code was really there.
        let object = object::File::parse(&*data).expect("an ELF file");
        let symbols = SYMBOLS.map(|name| symbol(&object, name));
        let expected = [hooks.traceback, hooks.context, hooks.symbolizer, hooks.callers];
        let expected = expected.map(|address| (!build.is_stripped()).then_some(address));
        assert_eq!(symbols, expected, "{build:?}");
        assert_eq!(symbol(&object, "runtime.allm").is_some(), !build.is_stripped());
    }
}

#[test]
fn a_program_that_does_not_call_the_setter_can_register_no_hooks() {
    for toolchain in TOOLCHAINS {
        for form in FORMS {
            let build = Build { toolchain, ..form };
            assert_eq!(found(&build.bytes()).0, Ok(None), "{build:?}");
        }
    }
}

/// The file offset of the byte at a stated address.
fn offset(data: &Bytes, address: Svma) -> usize {
    let object = object::File::parse(&**data).expect("an ELF file");
    let segment = object
        .segments()
        .find(|s| (s.address()..s.address() + s.size()).contains(&address.0))
        .expect("a segment");
    (segment.file_range().0 + address.0 - segment.address()) as usize
}

/// A stripped program whose function `name` was changed.
fn damaged(name: &str, change: impl FnOnce(&mut [u8])) -> Bytes {
    let build = builds().find(|build| build.is_stripped()).expect("a form");
    let data = program(build);
    let object = object::File::parse(&*data).expect("an ELF file");
    let table = Pclntab::find(&object, &data).expect("no error").expect("a table");
    let function = super::body(&table, name).expect("a function");
    let (start, end) = (offset(&data, function.entry()), offset(&data, function.end()));
    let mut damaged = data.to_vec();
    change(&mut damaged[start..end]);
    damaged.into()
}

#[test]
fn a_contradiction_between_two_functions_is_named() {
    // The displacement of the first load: 8 too high.
    let data = damaged("runtime.cgoSigtramp", |code| code[3] += 8);
    let (hooks, _) = found(&data);
    let Err(Error::Variable {
        variable,
        stated,
        by,
        function,
        used,
    }) = hooks
    else {
        panic!("{hooks:?}");
    };
    assert_eq!(
        (variable, by, function),
        (
            "runtime.cgoTraceback",
            "runtime.SetCgoTraceback",
            "runtime.cgoSigtramp"
        )
    );
    assert_eq!(used.0, stated.0 + 8);
}

#[test]
fn contexts_elsewhere_than_the_layout_says_are_refused() {
    // decq 0x148(%rax)
    let data = damaged("runtime.cgocallbackg1.func1", |code| code[3] += 8);
    let (hooks, _) = found(&data);
    let expected = Error::Field {
        field: "g.cgoCtxt",
        stated: 320,
        by: Source::Release,
        function: "runtime.cgocallbackg1.func1",
        used: 328,
    };
    assert_eq!(hooks, Err(expected));
}

#[test]
fn a_function_of_another_shape_is_named() {
    for name in [
        "runtime.SetCgoTraceback",
        "runtime.cgocallbackg1.func1",
        "runtime.mcommoninit",
    ] {
        let data = damaged(name, |code| code.fill(0xcc));
        let (hooks, threads) = found(&data);
        let error = hooks.err().or(threads.err());
        assert!(
            matches!(error, Some(Error::Shape { function }) if function == name),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn damaged_functions_do_not_panic() {
    for toolchain in TOOLCHAINS {
        let form = builds().next().expect("a form");
        let data = program(Build { toolchain, ..form });
        let object = object::File::parse(&*data).expect("an ELF file");
        let table = Pclntab::find(&object, &data).expect("no error").expect("a table");
        let image = Image::new(&object, &data).expect("an image");
        for name in [super::SETTER, super::POP, "runtime.mcommoninit"] {
            let function = super::body(&table, name).expect("a function");
            let code = super::code(&image, &function, super::MAX_CODE).expect("code");
            for bit in 0..8 * code.len() {
                let mut code = code.to_vec();
                code[bit / 8] ^= 1 << (bit % 8);
                let _ = super::stores(&code, function.entry());
                let _ = super::pop(&code);
                let _ = threads::decode(&code, function.entry());
            }
        }
    }
}

/// A running program.
struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    data: Bytes,
    _dir: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(build: Build) -> Self {
        let dir = TempDir::new().expect("temporary directory");
        let data = program(build);
        let path = write_program(&data, dir.path());
        let mut command = Command::new(&path);
        if build.mode == "c-shared" {
            let host = dir.path().join("host");
            let source = dir.path().join("host.c");
            std::fs::write(&source, include_str!("../../../gopclntab/testdata/host.c"))
                .expect("it is written");
            run(
                Command::new("gcc").arg(source).arg("-o").arg(&host).arg("-ldl"),
                &[],
            );
            command = Command::new(host);
            command.arg(&path);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        Self {
            stdin: child.stdin.take().expect("a pipe"),
            stdout: BufReader::new(child.stdout.take().expect("a pipe")),
            child,
            data,
            _dir: dir,
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("it reads");
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).expect("it answers");
        assert_eq!(answer, "done\n", "to {line}");
    }

    fn look(&self) -> (Hooks, Vec<Thread>) {
        let process = Process::open(self.child.id()).expect("it runs");
        let bias = self.bias(&process);
        let read = |address: Avma, len| process.memory(address.0, len);
        let (hooks, threads) = found(&self.data);
        let hooks = hooks.expect("they are found").expect("it can register hooks");
        let threads = threads.expect("they are found");
        (
            hooks.read(bias, &read).expect("memory can be read"),
            threads.read(bias, &read).expect("memory can be read"),
        )
    }

    fn bias(&self, process: &Process) -> Bias {
        let maps = process.maps().expect("maps");
        let entry = maps
            .iter()
            .find(|entry| entry.executable && entry.name.ends_with("/answers"))
            .expect("it is mapped");
        let object = object::File::parse(&*self.data).expect("an ELF file");
        let segment = object
            .segments()
            .find(|s| s.file_range().0 == entry.offset)
            .expect("a segment");
        Bias(entry.start.wrapping_sub(segment.address()))
    }
}

fn contexts(threads: &[Thread]) -> Vec<u64> {
    threads.iter().map(Thread::contexts).filter(|&n| n > 0).collect()
}

#[test]
fn registered_hooks_and_live_contexts_are_seen_in_every_form_of_every_release() {
    for build in builds() {
        let mut running = Running::start(build);
        running.tell("wait 1");
        let (hooks, threads) = running.look();
        assert_eq!(
            (hooks.traceback, hooks.context, hooks.symbolizer),
            (None, None, None),
            "{build:?}"
        );
        assert!(hooks.callers.is_some(), "{build:?}");
        assert!(
            contexts(&threads).is_empty(),
            "there is no context hook yet: {build:?}"
        );

        running.tell("register tcs");
        running.tell("wait 3");
        let (hooks, threads) = running.look();
        assert_eq!(contexts(&threads), [3], "{build:?}");
        let main = threads.iter().find(|thread| thread.contexts() > 0).expect("one");
        assert!(main.c_calls >= 3 && !main.is_idle(), "{build:?}: {main:?}");
        let tasks = std::fs::read_dir(format!("/proc/{}/task", running.child.id())).expect("it runs");
        let tasks: Vec<u64> = tasks
            .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        assert!(tasks.contains(&main.tid), "{build:?}: {main:?}");
        let values = [hooks.traceback, hooks.context, hooks.symbolizer].map(|hook| hook.is_some());
        assert_eq!(values, [true; 3], "{build:?}");

        // By name, where there are names.
        let object = object::File::parse(&*running.data).expect("an ELF file");
        let process = Process::open(running.child.id()).expect("it runs");
        let bias = running.bias(&process);
        for (hook, name) in [
            (hooks.traceback, "hook_traceback"),
            (hooks.context, "hook_context"),
            (hooks.symbolizer, "hook_symbolizer"),
            (hooks.callers, "x_cgo_callers"),
        ] {
            if let Some(expected) = symbol(&object, name) {
                assert_eq!(hook, Some(expected.to_avma(bias)), "{build:?}: {name}");
            }
        }
    }
}

#[test]
fn each_hook_can_be_nil_by_itself() {
    for (letters, expected) in [
        ("t", [true, false, false]),
        ("tc", [true, true, false]),
        ("ts", [true, false, true]),
        ("cs", [false, true, true]),
    ] {
        let mut running = Running::start(builds().next().expect("a form"));
        running.tell(&format!("register {letters}"));
        running.tell("wait 2");
        let (hooks, threads) = running.look();
        let values = [hooks.traceback, hooks.context, hooks.symbolizer].map(|hook| hook.is_some());
        assert_eq!(values, expected, "{letters}");
        let expected: &[u64] = if letters.contains('c') { &[2] } else { &[] };
        assert_eq!(contexts(&threads), expected, "{letters}");
    }
}

#[test]
fn a_goroutine_that_is_parked_in_a_callback_keeps_its_contexts() {
    for toolchain in TOOLCHAINS {
        let form = builds().next().expect("a form");
        let mut running = Running::start(Build { toolchain, ..form });
        running.tell("register tcs");
        running.tell("park 2");
        running.tell("wait 5");
        let (_, threads) = running.look();
        let mut contexts = contexts(&threads);
        contexts.sort_unstable();
        assert_eq!(contexts, [2, 5], "{toolchain}");
    }
}
