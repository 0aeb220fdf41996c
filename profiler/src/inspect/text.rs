//! An [`Inspection`] for a terminal.

use super::{Code, Go, GoProgram, Inspection, NamedHooks, Place, PublishedTable};
use crate::format::{escape, percent, thousands};
use crate::hooks::table::VERSION;
use crate::target::go::threads::Thread;
use crate::target::preflight::{Condition, Outcome, Verdict};
use std::fmt::Write;

/// Threads with contexts that are listed.
const MAX_THREADS: usize = 10;

/// Lines ended by newlines. What comes from the process is escaped.
pub fn text(inspection: &Inspection) -> String {
    let mut out = String::new();
    let executable = inspection.executable.as_deref().unwrap_or("executable unknown");
    line(
        &mut out,
        "process",
        &format!(
            "{} ({}), {executable}, {}",
            inspection.pid,
            inspection.program,
            count(inspection.threads, "thread")
        ),
    );
    match &inspection.go {
        Go::Absent => line(&mut out, "go", "no Go runtime"),
        Go::NotUnderstood { object, problem } => {
            line(&mut out, "go", &format!("in {object}, not understood: {problem}"));
        }
        Go::Found(program) => go(&mut out, program),
    }
    if let Some(published) = &inspection.table {
        table(&mut out, published);
    }
    code(&mut out, &inspection.code);
    conditions(&mut out, &inspection.conditions);
    verdict(&mut out, &inspection.verdict());
    out
}

/// How wide the column of labels is.
const LABELS: usize = 12;

/// One line: a label, and text that may come from the process.
fn line(out: &mut String, label: &str, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{label:LABELS$}{}", escape(text));
}

fn go(out: &mut String, program: &GoProgram) {
    let version = program.version.as_deref().unwrap_or("unknown release");
    let cgo = if program.cgo { "with cgo" } else { "without cgo" };
    line(out, "go", &format!("{version}, {cgo}, in {}", program.object));
    line(
        out,
        "layout",
        &format!("of the runtime by {}", program.layout_source),
    );
    match &program.hooks {
        Err(problem) => line(out, "hooks", &format!("not known: {problem}")),
        Ok(None) => line(
            out,
            "hooks",
            "none: the program does not use runtime.SetCgoTraceback",
        ),
        Ok(Some(hooks)) => named(out, hooks),
    }
    match &program.threads {
        Err(problem) => line(out, "contexts", &format!("not known: {problem}")),
        Ok(threads) => contexts(out, threads),
    }
}

fn named(out: &mut String, hooks: &NamedHooks) {
    for (label, hook) in [
        ("traceback", &hooks.traceback),
        ("context", &hooks.context),
        ("symbolizer", &hooks.symbolizer),
        ("caller", &hooks.callers),
    ] {
        let place = hook.as_ref().map_or_else(|| "nil".to_owned(), place);
        line(out, label, &place);
    }
}

fn table(out: &mut String, table: &PublishedTable) {
    match &table.hooks {
        Err(problem) => line(
            out,
            "hooks",
            &format!("in {}, not understood: {problem}", table.object),
        ),
        Ok(hooks) => {
            let published = format!("published in a table of version {VERSION}, in {}", table.object);
            line(out, "hooks", &published);
            for (label, hook) in [("traceback", &hooks.traceback), ("symbolizer", &hooks.symbolizer)] {
                let place = hook.as_ref().map_or_else(|| "null".to_owned(), place);
                line(out, label, &place);
            }
        }
    }
}

fn place(place: &Place) -> String {
    let address = place.address;
    let object = match place.object.as_deref() {
        None => return format!("{address}, where there is no code"),
        Some("") => "anonymous memory",
        Some(object) => object,
    };
    match (&place.symbol, place.stated) {
        (Ok(symbol), _) => format!("{symbol} in {object} ({address})"),
        (Err(_), Some(stated)) => format!("{stated:#x} in {object}, which has no name for it ({address})"),
        (Err(_), None) => format!("in {object} ({address})"),
    }
}

fn contexts(out: &mut String, threads: &[Thread]) {
    let with: Vec<&Thread> = threads.iter().filter(|thread| thread.contexts() > 0).collect();
    let total: u64 = with.iter().map(|thread| thread.contexts()).sum();
    // The runtime keeps one for C threads that come (runtime/proc.go, `extraM`): no thread as long as it has no id.
    let of = threads.iter().filter(|thread| thread.tid != 0).count();
    line(
        out,
        "contexts",
        &format!(
            "{} live, on {} of {} of the Go runtime",
            thousands(total),
            with.len(),
            count(of, "thread")
        ),
    );
    for thread in with.iter().take(MAX_THREADS) {
        let goroutine = thread.goroutine.map_or(0, |goroutine| goroutine.id);
        line(
            out,
            "",
            &format!(
                "{} on thread {} (goroutine {goroutine})",
                thousands(thread.contexts()),
                thread.tid
            ),
        );
    }
    if let more @ 1.. = with.len().saturating_sub(MAX_THREADS) {
        line(out, "", &format!("and on {more} more"));
    }
}

fn code(out: &mut String, code: &[Code]) {
    out.push_str("\ncode with unwind rules; without one, the walk goes on by frame pointers\n");
    for code in code {
        let (bytes, share) = match &code.rules {
            Ok(covered) => (
                covered.text_bytes,
                percent(
                    covered.text_bytes.saturating_sub(covered.bytes_without_rule),
                    covered.text_bytes,
                ),
            ),
            Err(_) => (code.mapped_bytes, "none".to_owned()),
        };
        let name = match &code.rules {
            Err(why) if code.name.is_empty() => why.clone(),
            Err(why) => format!("{}: {why}", code.name),
            Ok(_) => code.name.clone(),
        };
        let mappings = match code.mappings {
            1 => String::new(),
            n => format!(", {n} mappings"),
        };
        let _ = writeln!(
            out,
            "  {share:>8} of {:>12} bytes  {}{mappings}",
            thousands(bytes),
            escape(&name)
        );
        for problem in &code.problems {
            let _ = writeln!(out, "    {}", escape(problem));
        }
    }
}

fn conditions(out: &mut String, conditions: &[Condition]) {
    out.push_str("\nconditions for honouring hooks\n");
    let names = conditions
        .iter()
        .map(|condition| condition.requirement.name().len());
    let width = names.max().unwrap_or(0);
    for condition in conditions {
        let outcome = match condition.outcome {
            Outcome::Holds => "ok",
            Outcome::Fails => "FAILS",
            Outcome::Unknown => "open",
        };
        let name = condition.requirement.name();
        let _ = writeln!(out, "  {outcome:5}  {name:width$}  {}", escape(&condition.fact));
        if let Some(remedy) = condition.remedy {
            let _ = writeln!(out, "         {:width$}  → {remedy}", "");
        }
    }
}

fn verdict(out: &mut String, verdict: &Verdict<'_>) {
    out.push_str("\nhooks can be honoured: ");
    match verdict {
        Verdict::Yes => out.push_str("yes\n"),
        Verdict::No(failing) => {
            let facts: Vec<_> = failing.iter().map(|condition| escape(&condition.fact)).collect();
            let _ = writeln!(out, "no, because {}", facts.join("; "));
        }
    }
}

fn count(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::inspect::testing::{hooked, plain, published};

    #[test]
    fn a_program_with_hooks_is_shown_with_everything() {
        assert_eq!(
            text(&hooked()),
            "\
process     4711 (server), /usr/bin/server, 7 threads
go          go1.26.8, with cgo, in /usr/bin/server
layout      of the runtime by the debug information
traceback   hook_traceback in /usr/lib/libhooks.so (0x7f0000001010)
context     nil
symbolizer  0x1030 in /usr/lib/libhooks.so, which has no name for it (0x7f0000001030)
caller      x_cgo_callers in /usr/bin/server (0x4a0ad0)
contexts    3 live, on 1 of 2 threads of the Go runtime
            3 on thread 4711 (goroutine 18)

code with unwind rules; without one, the walk goes on by frame pointers
    99.5 % of      200,000 bytes  /usr/bin/server
   100.0 % of       10,000 bytes  /usr/lib/libhooks.so
    its table of Go functions cannot be used: it is cut off
      none of        8,192 bytes  anonymous memory, 2 mappings

conditions for honouring hooks
  ok     64-bit       a 64-bit executable
  FAILS  no-tracer    process 9 traces it (a debugger, strace)
                      → end the debugger
  open   idle-thread  none of 7 threads is idle

hooks can be honoured: no, because process 9 traces it (a debugger, strace)
"
        );
    }

    #[test]
    fn hooks_in_a_table_are_shown() {
        let text = text(&published());
        assert!(
            text.starts_with(
                "\
process     7 (interpreter), executable unknown, 1 thread
go          no Go runtime
hooks       published in a table of version 0, in /usr/bin/interpreter
traceback   list in /usr/bin/interpreter (0x401010)
symbolizer  null

code"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_program_without_a_go_runtime_is_short() {
        let text = text(&plain());
        assert!(
            text.starts_with(
                "process     7 (\\u{1b}[2J), executable unknown, 1 thread\ngo          no Go runtime\n\ncode"
            ),
            "{text}"
        );
        assert!(text.ends_with("\nhooks can be honoured: yes\n"), "{text}");
    }
}
