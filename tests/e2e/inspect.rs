//! What `profiler inspect` sees of real programs, and that they do not notice.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::unistd::Pid;
use profiler_tests::exclusive;
use profiler_tests::profiler::{binary, command};
use profiler_tests::programs::{self, Form, GO_TOOLCHAINS, Program};
use profiler_tests::snapshot::{Freedom, Snapshot};
use profiler_tests::target::Target;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Callbacks in which the goroutine of `go_hooks` waits.
const HELD: u64 = 3;

/// The program with hooks, running, and the library with its symbolizer.
struct Hooked {
    target: Target,
    program: Program,
    library: PathBuf,
}

impl Hooked {
    fn start(toolchain: &str, form: Form) -> Result<Self> {
        let program = programs::go("go_hooks", toolchain, form, "")?;
        let library = programs::native_library("go_hooks/symbolizer.c")?.path;
        let mut command = program.command();
        command.arg(&library);
        Ok(Self {
            target: Target::start(command)?,
            program,
            library,
        })
    }

    fn register(&mut self, letters: &str) -> Result<()> {
        self.target.command(&format!("register {letters}"))?;
        let answer = self.target.read_line()?;
        ensure!(answer == "registered", "{answer}");
        Ok(())
    }

    fn inspect(&self) -> Result<Value> {
        let output = command(["inspect", "--json", "-p", &self.target.pid().to_string()])?.output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The hook `name`: symbol and object.
    fn hook<'v>(inspection: &'v Value, name: &str) -> (&'v Value, &'v Value) {
        let hook = &inspection["go"]["hooks"][name];
        (&hook["symbol"], &hook["object"])
    }
}

/// How many contexts there are on each thread that has any.
fn held(inspection: &Value) -> Result<Vec<u64>> {
    let threads = inspection["go"]["threads"]
        .as_array()
        .with_context(|| format!("there are no threads in {inspection}"))?;
    let contexts = threads.iter().filter_map(|thread| thread["contexts"].as_u64());
    Ok(contexts.filter(|&n| n > 0).collect())
}

#[test]
fn hooks_have_their_names_and_libraries_in_every_form_and_release() -> Result<()> {
    let _guard = exclusive();
    for toolchain in GO_TOOLCHAINS {
        for form in Form::ALL {
            let mut hooked = Hooked::start(toolchain, form)?;
            hooked.register("tcs")?;
            let seen = hooked.inspect()?;
            let program = json!(hooked.program.path);
            let named = |name: &str| {
                if form == Form::Stripped {
                    Value::Null
                } else {
                    json!(name)
                }
            };
            for (hook, symbol) in [
                ("traceback", "hook_traceback"),
                ("context", "hook_context"),
                ("callers", "x_cgo_callers"),
            ] {
                ensure!(
                    Hooked::hook(&seen, hook) == (&named(symbol), &program),
                    "{toolchain} {form:?}: {hook}: {seen:#}"
                );
            }
            ensure!(
                Hooked::hook(&seen, "symbolizer") == (&json!("hook_symbolizer"), &json!(hooked.library)),
                "{toolchain} {form:?}: {seen:#}"
            );
            ensure!(seen["go"]["cgo"] == true, "{seen:#}");
            ensure!(
                seen["hooks_can_be_honoured"] == true,
                "{toolchain} {form:?}: {seen:#}"
            );
            hooked.target.finish()?;
        }
    }
    Ok(())
}

#[test]
fn contexts_that_wait_are_counted_on_their_thread() -> Result<()> {
    let _guard = exclusive();
    for toolchain in GO_TOOLCHAINS {
        for form in Form::ALL {
            let mut hooked = Hooked::start(toolchain, form)?;
            let before = hooked.inspect()?;
            ensure!(held(&before)?.is_empty(), "{toolchain} {form:?}: {before:#}");
            hooked.register("tc")?;
            let seen = hooked.inspect()?;
            let held = held(&seen)?;
            ensure!(
                held.contains(&HELD) && held.len() <= 2 && held.iter().all(|&n| n <= 5),
                "{toolchain} {form:?}: {held:?}"
            );
            ensure!(
                seen["go"]["contexts"] == held.iter().sum::<u64>(),
                "{toolchain} {form:?}: {seen:#}"
            );
            hooked.target.finish()?;
        }
    }
    Ok(())
}

#[test]
fn hooks_that_are_registered_late_are_seen_once_they_are() -> Result<()> {
    let _guard = exclusive();
    let mut hooked = Hooked::start("local", Form::Exe)?;
    let before = hooked.inspect()?;
    ensure!(before["go"]["can_register"] == true, "{before:#}");
    ensure!(before["failing"] == json!(["traceback-hook"]), "{before:#}");
    for hook in ["traceback", "context", "symbolizer"] {
        ensure!(before["go"]["hooks"][hook].is_null(), "{before:#}");
    }
    hooked.register("t")?;
    let after = hooked.inspect()?;
    ensure!(after["failing"] == json!([]), "{after:#}");
    ensure!(
        after["go"]["hooks"]["traceback"]["symbol"] == "hook_traceback",
        "{after:#}"
    );
    for hook in ["context", "symbolizer"] {
        ensure!(after["go"]["hooks"][hook].is_null(), "{after:#}");
    }
    hooked.target.finish()?;
    Ok(())
}

#[test]
fn nearly_all_code_of_a_go_program_has_rules() -> Result<()> {
    let _guard = exclusive();
    let hooked = Hooked::start("local", Form::Stripped)?;
    let seen = hooked.inspect()?;
    let code = seen["code"].as_array().context("there is no code")?;
    let own = code
        .iter()
        .find(|code| code["object"] == json!(hooked.program.path))
        .with_context(|| format!("the program is not in {seen:#}"))?;
    let number = |name: &str| own[name].as_u64().with_context(|| format!("{name} in {own}"));
    let (text, without) = (number("text_bytes")?, number("bytes_without_rule")?);
    ensure!(text > 400_000 && without * 50 < text, "{own}");
    hooked.target.finish()?;
    Ok(())
}

#[test]
fn a_program_that_is_inspected_is_left_alone() -> Result<()> {
    let _guard = exclusive();
    let mut hooked = Hooked::start("local", Form::Exe)?;
    hooked.register("tcs")?;
    let before = Snapshot::at_rest(hooked.target.pid())?;
    for _ in 0..20 {
        hooked.inspect()?;
    }
    let after = Snapshot::at_rest(hooked.target.pid())?;
    let differences = before.differences(&after, Freedom::GoRuntime);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    let alone = Hooked::start("local", Form::Exe)?.target.finish()?;
    let finished = hooked.target.finish()?;
    ensure!(
        finished.status.success() && finished.checksum == alone.checksum,
        "{finished:?}, alone {alone:?}"
    );
    Ok(())
}

#[test]
fn a_debugger_is_named() -> Result<()> {
    let _guard = exclusive();
    let mut hooked = Hooked::start("local", Form::Exe)?;
    hooked.register("t")?;
    let pid = Pid::from_raw(hooked.target.pid().cast_signed());
    // A thread that ends lets go of what it traces.
    let seen = std::thread::scope(|scope| {
        let debugger = scope.spawn(|| {
            ptrace::seize(pid, ptrace::Options::empty())?;
            hooked.inspect()
        });
        debugger.join()
    });
    let Ok(seen) = seen else {
        bail!("the debugger panicked");
    };
    let seen = seen?;
    ensure!(seen["failing"] == json!(["no-tracer"]), "{seen:#}");
    hooked.target.finish()?;
    Ok(())
}

#[test]
fn a_program_in_c_is_shown_for_people() -> Result<()> {
    let _guard = exclusive();
    // With a name that would clear a terminal.
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("a\u{1b}[2Jb");
    fs::copy(programs::native("busy_threads/busy_threads.c")?.path, &program)?;
    let mut busy = Command::new(&program);
    busy.arg("1");
    let target = Target::start(busy)?;
    let output = command(["inspect", "-p", &target.pid().to_string()])?.output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() && !text.contains('\u{1b}'), "{text:?}");
    for words in [
        "no Go runtime",
        "(a\\u{1b}[2Jb)",
        "[vdso]",
        "hooks can be honoured: no, because the process has no Go runtime, and no table of traceback hooks\n",
    ] {
        ensure!(text.contains(words), "there is no {words:?} in\n{text}");
    }
    target.finish()?;
    Ok(())
}

#[test]
fn what_cannot_be_looked_at_is_named_with_the_way_out() -> Result<()> {
    let _guard = exclusive();
    let mut gone = Command::new("true").spawn()?;
    gone.wait()?;
    let output = command(["inspect", "-p", &gone.id().to_string()])?.output()?;
    refused(&output, &["there is no process", &gone.id().to_string()])?;

    let mut others = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    // Where everybody may look.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let profiler = folder.path().join("profiler");
    fs::copy(binary()?, &profiler)?;
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&profiler)
        .args(["inspect", "-p", &others.id().to_string()])
        .output();
    drop(others.stdin.take());
    others.wait()?;
    refused(
        &output.context("cannot run setpriv")?,
        &["cannot inspect", "sudo"],
    )
}

fn refused(output: &Output, words: &[&str]) -> Result<()> {
    ensure!(output.status.code() == Some(1), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr);
    for word in words {
        ensure!(message.contains(word), "there is no {word:?} in:\n{message}");
    }
    Ok(())
}
