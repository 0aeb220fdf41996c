//! An [`Inspection`] for programs.

use super::{Code, Go, GoProgram, Inspection, Place, PublishedTable};
use crate::format::pretty_json;
use crate::hooks::table::VERSION;
use crate::target::preflight::{Condition, Outcome, Verdict};
use serde::Serialize;

/// One JSON object, ended by a newline.
///
/// The names of its fields are stable. Fields may be added; when one is renamed, removed or changes its meaning,
/// `schema` becomes 2. Addresses are strings in hexadecimal with `0x`.
///
/// | field | what |
/// |---|---|
/// | `schema` | 1 |
/// | `pid`, `program`, `executable` | the process; name of its main thread; path, null if it cannot be read |
/// | `threads` | how many it has |
/// | `go` | null if there is no Go runtime |
/// | `go.object` | the file that the runtime is in |
/// | `go.problem` | why the runtime or its hooks are not understood, else null; what depends on it is then null |
/// | `go.version`, `go.cgo` | the release; whether built with cgo |
/// | `go.layout_source` | where offsets in the runtime are known from |
/// | `go.can_register` | whether the program has `runtime.SetCgoTraceback` |
/// | `go.hooks.traceback`, `.context`, `.symbolizer` | null if nil, else as below |
/// | `go.hooks.callers` | the C function that calls the traceback hook in signal handlers, likewise |
/// | `go.hooks.*.address`, `.object`, `.object_address`, `.symbol` | address in the process; file there, empty for anonymous memory, null if none; address as the file states it; function, null without a name |
/// | `go.threads_problem` | why the threads of the runtime cannot be read, else null |
/// | `go.threads` | a list of `tid` (as the process sees it; 0 for those kept for C threads to come), `goroutine` (null if it has none), `contexts`, `c_calls` |
/// | `go.contexts` | how many contexts are live |
/// | `table` | null if there is a Go runtime, or no table of traceback hooks |
/// | `table.object`, `table.problem` | the file that it is in; why it is none, else null |
/// | `table.version`, `table.traceback`, `table.symbolizer` | version of the protocol; the hooks, as those of `go` |
/// | `code` | a list of `object`, `mappings`, `mapped_bytes`, `text_bytes`, `bytes_without_rule` (null if there is no object), `problem`, `notes` |
/// | `conditions` | a list of `name`, `outcome` (`holds`, `fails` or `unknown`), `fact`, `remedy` (or null) |
/// | `hooks_can_be_honoured` | true or false |
/// | `failing` | the names of the conditions that fail |
///
/// Names are not escaped beyond what JSON demands.
pub fn json(inspection: &Inspection) -> String {
    pretty_json(&Document::of(inspection))
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    pid: u32,
    program: &'a str,
    executable: Option<&'a str>,
    threads: usize,
    go: Option<GoObject<'a>>,
    table: Option<TableObject<'a>>,
    code: Vec<CodeObject<'a>>,
    conditions: Vec<ConditionObject<'a>>,
    hooks_can_be_honoured: bool,
    failing: Vec<&'static str>,
}

#[derive(Default, Serialize)]
struct GoObject<'a> {
    object: &'a str,
    problem: Option<&'a str>,
    version: Option<&'a str>,
    cgo: Option<bool>,
    layout_source: Option<String>,
    can_register: Option<bool>,
    hooks: Option<HooksObject<'a>>,
    threads_problem: Option<&'a str>,
    threads: Option<Vec<ThreadObject>>,
    contexts: Option<u64>,
}

#[derive(Serialize)]
struct HooksObject<'a> {
    traceback: Option<PlaceObject<'a>>,
    context: Option<PlaceObject<'a>>,
    symbolizer: Option<PlaceObject<'a>>,
    callers: Option<PlaceObject<'a>>,
}

#[derive(Serialize)]
struct TableObject<'a> {
    object: &'a str,
    problem: Option<&'a str>,
    version: Option<u64>,
    traceback: Option<PlaceObject<'a>>,
    symbolizer: Option<PlaceObject<'a>>,
}

#[derive(Serialize)]
struct PlaceObject<'a> {
    address: String,
    object: Option<&'a str>,
    object_address: Option<String>,
    symbol: Option<&'a str>,
}

#[derive(Serialize)]
struct ThreadObject {
    tid: u64,
    goroutine: Option<u64>,
    contexts: u64,
    c_calls: u32,
}

#[derive(Serialize)]
struct CodeObject<'a> {
    object: &'a str,
    mappings: usize,
    mapped_bytes: u64,
    text_bytes: Option<u64>,
    bytes_without_rule: Option<u64>,
    problem: Option<&'a str>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct ConditionObject<'a> {
    name: &'static str,
    outcome: &'static str,
    fact: &'a str,
    remedy: Option<&'static str>,
}

impl<'a> Document<'a> {
    fn of(inspection: &'a Inspection) -> Self {
        let failing = match inspection.verdict() {
            Verdict::Yes => Vec::new(),
            Verdict::No(failing) => failing.iter().map(|c| c.requirement.name()).collect(),
        };
        Self {
            schema: 1,
            pid: inspection.pid,
            program: &inspection.program,
            executable: inspection.executable.as_deref(),
            threads: inspection.threads,
            go: match &inspection.go {
                Go::Absent => None,
                Go::NotUnderstood { object, problem } => Some(GoObject {
                    object,
                    problem: Some(problem),
                    ..GoObject::default()
                }),
                Go::Found(program) => Some(GoObject::of(program)),
            },
            table: inspection.table.as_ref().map(TableObject::of),
            code: inspection.code.iter().map(CodeObject::of).collect(),
            conditions: inspection.conditions.iter().map(ConditionObject::of).collect(),
            hooks_can_be_honoured: failing.is_empty(),
            failing,
        }
    }
}

impl<'a> GoObject<'a> {
    fn of(program: &'a GoProgram) -> Self {
        let hooks = program.hooks.as_ref();
        let threads = program.threads.as_ref();
        Self {
            object: &program.object,
            problem: hooks.err().map(String::as_str),
            version: program.version.as_deref(),
            cgo: Some(program.cgo),
            layout_source: Some(program.layout_source.to_string()),
            can_register: hooks.ok().map(Option::is_some),
            hooks: hooks.ok().and_then(Option::as_ref).map(|hooks| {
                let place = |place: &'a Option<Place>| place.as_ref().map(PlaceObject::of);
                HooksObject {
                    traceback: place(&hooks.traceback),
                    context: place(&hooks.context),
                    symbolizer: place(&hooks.symbolizer),
                    callers: place(&hooks.callers),
                }
            }),
            threads_problem: threads.err().map(String::as_str),
            threads: threads.ok().map(|threads| {
                let object = |thread: &crate::target::go::threads::Thread| ThreadObject {
                    tid: thread.tid,
                    goroutine: thread.goroutine.map(|goroutine| goroutine.id),
                    contexts: thread.contexts(),
                    c_calls: thread.c_calls,
                };
                threads.iter().map(object).collect()
            }),
            contexts: threads
                .ok()
                .map(|threads| threads.iter().map(|thread| thread.contexts()).sum()),
        }
    }
}

impl<'a> TableObject<'a> {
    fn of(table: &'a PublishedTable) -> Self {
        let hooks = table.hooks.as_ref();
        let place = |hook: &'a Option<Place>| hook.as_ref().map(PlaceObject::of);
        Self {
            object: &table.object,
            problem: hooks.err().map(String::as_str),
            version: hooks.ok().map(|_| VERSION),
            traceback: hooks.ok().and_then(|hooks| place(&hooks.traceback)),
            symbolizer: hooks.ok().and_then(|hooks| place(&hooks.symbolizer)),
        }
    }
}

impl<'a> PlaceObject<'a> {
    fn of(place: &'a Place) -> Self {
        Self {
            address: place.address.to_string(),
            object: place.object.as_deref(),
            object_address: place.stated.map(|stated| format!("{stated:#x}")),
            symbol: place.symbol.as_deref().ok(),
        }
    }
}

impl<'a> CodeObject<'a> {
    fn of(code: &'a Code) -> Self {
        let covered = code.rules.as_ref();
        Self {
            object: &code.name,
            mappings: code.mappings,
            mapped_bytes: code.mapped_bytes,
            text_bytes: covered.ok().map(|covered| covered.text_bytes),
            bytes_without_rule: covered.ok().map(|covered| covered.bytes_without_rule),
            problem: covered.err().map(String::as_str),
            notes: &code.problems,
        }
    }
}

impl<'a> ConditionObject<'a> {
    fn of(condition: &'a Condition) -> Self {
        Self {
            name: condition.requirement.name(),
            outcome: match condition.outcome {
                Outcome::Holds => "holds",
                Outcome::Fails => "fails",
                Outcome::Unknown => "unknown",
            },
            fact: &condition.fact,
            remedy: condition.remedy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::json;
    use crate::inspect::testing::{hooked, plain, published};
    use serde_json::{Value, from_str, json as value};

    #[test]
    fn the_json_has_the_documented_fields() {
        let expected = value!({
            "schema": 1,
            "pid": 4711,
            "program": "server",
            "executable": "/usr/bin/server",
            "threads": 7,
            "go": {
                "object": "/usr/bin/server",
                "problem": null,
                "version": "go1.26.8",
                "cgo": true,
                "layout_source": "the debug information",
                "can_register": true,
                "hooks": {
                    "traceback": {
                        "address": "0x7f0000001010",
                        "object": "/usr/lib/libhooks.so",
                        "object_address": "0x1010",
                        "symbol": "hook_traceback",
                    },
                    "context": null,
                    "symbolizer": {
                        "address": "0x7f0000001030",
                        "object": "/usr/lib/libhooks.so",
                        "object_address": "0x1030",
                        "symbol": null,
                    },
                    "callers": {
                        "address": "0x4a0ad0",
                        "object": "/usr/bin/server",
                        "object_address": "0x4a0ad0",
                        "symbol": "x_cgo_callers",
                    },
                },
                "threads_problem": null,
                "threads": [
                    {"tid": 4711, "goroutine": 18, "contexts": 3, "c_calls": 0},
                    {"tid": 4712, "goroutine": null, "contexts": 0, "c_calls": 0},
                    {"tid": 0, "goroutine": 17, "contexts": 0, "c_calls": 0},
                ],
                "contexts": 3,
            },
            "table": null,
            "code": [
                {
                    "object": "/usr/bin/server",
                    "mappings": 1,
                    "mapped_bytes": 8192,
                    "text_bytes": 200_000,
                    "bytes_without_rule": 1000,
                    "problem": null,
                    "notes": [],
                },
                {
                    "object": "/usr/lib/libhooks.so",
                    "mappings": 1,
                    "mapped_bytes": 8192,
                    "text_bytes": 10_000,
                    "bytes_without_rule": 0,
                    "problem": null,
                    "notes": ["its table of Go functions cannot be used: it is cut off"],
                },
                {
                    "object": "",
                    "mappings": 2,
                    "mapped_bytes": 8192,
                    "text_bytes": null,
                    "bytes_without_rule": null,
                    "problem": "anonymous memory",
                    "notes": [],
                },
            ],
            "conditions": [
                {"name": "64-bit", "outcome": "holds", "fact": "a 64-bit executable", "remedy": null},
                {
                    "name": "no-tracer",
                    "outcome": "fails",
                    "fact": "process 9 traces it (a debugger, strace)",
                    "remedy": "end the debugger",
                },
                {"name": "idle-thread", "outcome": "unknown", "fact": "none of 7 threads is idle", "remedy": null},
            ],
            "hooks_can_be_honoured": false,
            "failing": ["no-tracer"],
        });
        assert_eq!(from_str::<Value>(&json(&hooked())).expect("JSON"), expected);
    }

    #[test]
    fn a_table_says_which_hooks_it_names() {
        let found: Value = from_str(&json(&published())).expect("JSON");
        let expected = value!({
            "object": "/usr/bin/interpreter",
            "problem": null,
            "version": 0,
            "traceback": {
                "address": "0x401010",
                "object": "/usr/bin/interpreter",
                "object_address": "0x401010",
                "symbol": "list",
            },
            "symbolizer": null,
        });
        assert_eq!(found["table"], expected);
    }

    #[test]
    fn a_program_without_a_go_runtime_has_null() {
        let found: Value = from_str(&json(&plain())).expect("JSON");
        assert_eq!(found["go"], Value::Null);
        assert_eq!(found["hooks_can_be_honoured"], true);
    }
}
