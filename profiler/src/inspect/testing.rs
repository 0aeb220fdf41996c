//! Inspections for tests.

use super::{Code, Covered, Go, GoProgram, Inspection, NamedHooks, Place, PublishedHooks, PublishedTable};
use crate::addr::Avma;
use crate::target::go::Source;
use crate::target::go::threads::{Goroutine, Thread};
use crate::target::preflight::{Condition, Outcome, Requirement};

fn place(object: &str, address: u64, stated: u64, symbol: Result<&str, &str>) -> Option<Place> {
    Some(Place {
        address: Avma(address),
        object: Some(object.to_owned()),
        stated: Some(stated),
        symbol: symbol.map(str::to_owned).map_err(str::to_owned),
    })
}

fn thread(tid: u64, goroutine: Option<Goroutine>) -> Thread {
    Thread {
        m: Avma(0xc000_0000 + tid),
        tid,
        goroutine,
        c_calls: 0,
    }
}

fn code(name: &str, rules: Result<(u64, u64), &str>) -> Code {
    Code {
        name: name.to_owned(),
        mappings: 1,
        mapped_bytes: 8192,
        rules: rules
            .map(|(text_bytes, bytes_without_rule)| Covered {
                text_bytes,
                bytes_without_rule,
            })
            .map_err(str::to_owned),
        problems: Vec::new(),
    }
}

/// A Go program with two of three hooks and contexts, under a debugger.
pub(super) fn hooked() -> Inspection {
    let (server, library) = ("/usr/bin/server", "/usr/lib/libhooks.so");
    let condition = |requirement, outcome, fact: &str, remedy| Condition {
        requirement,
        outcome,
        fact: fact.to_owned(),
        remedy,
    };
    Inspection {
        pid: 4711,
        program: "server".to_owned(),
        executable: Some(server.to_owned()),
        threads: 7,
        go: Go::Found(Box::new(GoProgram {
            object: server.to_owned(),
            version: Some("go1.26.8".to_owned()),
            cgo: true,
            layout_source: Source::Dwarf,
            hooks: Ok(Some(NamedHooks {
                traceback: place(library, 0x7f00_0000_1010, 0x1010, Ok("hook_traceback")),
                context: None,
                symbolizer: place(library, 0x7f00_0000_1030, 0x1030, Err("it is stripped")),
                callers: place(server, 0x4a_0ad0, 0x4a_0ad0, Ok("x_cgo_callers")),
            })),
            threads: Ok(vec![
                thread(4711, Some(Goroutine { id: 18, contexts: 3 })),
                thread(4712, None),
                thread(0, Some(Goroutine { id: 17, contexts: 0 })),
            ]),
        })),
        table: None,
        code: vec![
            code(server, Ok((200_000, 1000))),
            Code {
                problems: vec!["its table of Go functions cannot be used: it is cut off".to_owned()],
                ..code(library, Ok((10_000, 0)))
            },
            Code {
                mappings: 2,
                ..code("", Err("anonymous memory"))
            },
        ],
        conditions: vec![
            condition(Requirement::Bits64, Outcome::Holds, "a 64-bit executable", None),
            condition(
                Requirement::NoTracer,
                Outcome::Fails,
                "process 9 traces it (a debugger, strace)",
                Some("end the debugger"),
            ),
            condition(
                Requirement::IdleThread,
                Outcome::Unknown,
                "none of 7 threads is idle",
                None,
            ),
        ],
    }
}

/// A program without Go, with a name that would clear a terminal.
pub(super) fn plain() -> Inspection {
    Inspection {
        pid: 7,
        program: "\u{1b}[2J".to_owned(),
        executable: None,
        threads: 1,
        go: Go::Absent,
        table: None,
        code: Vec::new(),
        conditions: Vec::new(),
    }
}

/// A program without Go that publishes one of two hooks.
pub(super) fn published() -> Inspection {
    Inspection {
        table: Some(PublishedTable {
            object: "/usr/bin/interpreter".to_owned(),
            hooks: Ok(PublishedHooks {
                traceback: place("/usr/bin/interpreter", 0x40_1010, 0x40_1010, Ok("list")),
                symbolizer: None,
            }),
        }),
        program: "interpreter".to_owned(),
        ..plain()
    }
}
