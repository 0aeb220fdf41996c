//! Makes the stacks of a Go program's own profile and those of ours comparable. They differ in known ways, each for a
//! reason:
//!
//! * Where Go calls C and C calls Go, ours have the assembly between (`runtime.asmcgocall`, `crosscall2`), and Go's have
//!   `runtime.systemstack_switch`, a return address that `runtime.cgocallback` makes up. A hook may have gone on to
//!   `runtime.asmcgocall`, too. All of these are left out.
//! * Go's profile leaves out `runtime.goexit`, where goroutines begin.
//! * What the vDSO does, and the kernel, Go has as a part of the caller.
//! * Go's profile does not see the program's own signal handler at work, and not the runtime's monitor, which has no timer.
//! * Go does not clear the buffer for contexts between two of them. If a hook marks no end, the rest of a longer list
//!   follows. But a C segment ends where the stub is by which cgo called it.
//! * From the moment that a goroutine begins to leave Go for C, until it is back, or in Go that C called, Go's profile has
//!   `runtime.cgocall` as the innermost Go function. What the runtime does at these crossings is left out.
//! * Without a context function, Go's profile has no C between two Go segments. See [`Comparable::without_callers`].
//! * Go's profile has 32 addresses of a C segment, and 64 in all. See [`Comparable::limited`].
//! * Functions of libraries have the names that a symbolizer gives them, or that debug information gives them, or none. They
//!   are compared by where they start. Of functions of C that debug information says to be inlined, a hook knows nothing.

use crate::functions::Functions;
use crate::traced::{Place, Traced};
use anyhow::{Context, Result};
use object::{Object, ObjectSymbol};
use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The most addresses of a C segment in Go's profile (`cgoCallers` in runtime/symtab.go, Go 1.21–1.27).
const GO_SEGMENT: usize = 32;

/// The most addresses of a stack in Go's profile (`maxCPUProfStack` in runtime/cpuprof.go, Go 1.21–1.27).
const GO_FRAMES: usize = 64;

/// How much of a C segment is compared: what Go's profile has, but for one, that can be `runtime.asmcgocall`.
const SEGMENT: usize = GO_SEGMENT - 1;

/// How many frames of a stack are compared: of Go's 64 addresses, some are left out.
const FRAMES: usize = 48;

/// Frames that are in one of the profiles only.
const LEFT_OUT: [&str; 4] = [
    "runtime.asmcgocall",
    "crosscall2",
    "runtime.systemstack_switch",
    "runtime.goexit",
];

/// What called C, in Go's profile and in ours.
const CALLS: [&str; 3] = [
    "runtime.cgocall",
    "runtime.asmcgocall",
    "runtime.systemstack_switch",
];

/// Assembly between Go and C, without the name of a package.
const ASSEMBLY: [&str; 3] = ["crosscall2", "gosave_systemstack_switch", "_cgo_topofstack"];

/// Functions whose stacks are in ours only.
const UNSEEN: [&str; 4] = [
    "runtime.sigtramp",
    "runtime.cgoSigtramp",
    "x_cgo_callers",
    "runtime.sysmon",
];

/// A frame that can be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame {
    /// Of the function: its name, or its library and where it starts there.
    pub name: String,
    /// Whether it is C.
    pub is_c: bool,
}

/// Knows the functions of a program and of its libraries.
#[derive(Debug)]
pub struct Comparable {
    program: PathBuf,
    /// Where Go's functions are, and the assembly that belongs to them.
    go: Range<u64>,
    libraries: HashMap<String, Option<Functions>>,
}

impl Comparable {
    /// For the profiles of this program, which is at a fixed address and has its symbols.
    pub fn new(program: &Path) -> Result<Self> {
        let place = || format!("cannot read {}", program.display());
        let bytes = fs::read(program).with_context(place)?;
        let file = object::File::parse(&bytes[..]).with_context(place)?;
        let address = |name| {
            let symbol = file.symbol_by_name(name);
            symbol.map(|symbol| symbol.address()).with_context(place)
        };
        Ok(Self {
            program: program.to_owned(),
            go: address("runtime.text")?..address("runtime.etext")?,
            libraries: HashMap::new(),
        })
    }

    /// Whether Go's function is at this place, or assembly that belongs to Go's.
    pub fn is_go(&self, place: &Place) -> bool {
        self.go.contains(&place.address)
    }

    /// The frames that both profiles have, innermost first; `None` if Go's has no such stacks.
    pub fn frames(&mut self, stack: &Traced) -> Option<Vec<Frame>> {
        let is_unseen = |place: &Place| place.names().any(|name| UNSEEN.contains(&plain(name)));
        if stack.places.iter().any(|place| is_unseen(place)) {
            return None;
        }
        let all: Vec<_> = stack.places.iter().flat_map(|place| self.at(place)).collect();
        if is_returning(&all) {
            return None;
        }
        let mut frames = Vec::with_capacity(all.len());
        let mut is_over = false;
        for frame in crossed(&all) {
            if [
                "runtime.cgocall",
                "runtime.asmcgocall",
                "runtime.systemstack_switch",
            ]
            .contains(&&*frame.name)
            {
                is_over = false;
            }
            let is_left_out = LEFT_OUT.contains(&&*frame.name) || is_over;
            is_over |= frame.is_c && is_stub(&frame.name);
            if !is_left_out {
                frames.push(frame.clone());
            }
        }
        Some(frames)
    }

    /// A stack without the C functions through which Go was called.
    pub fn without_callers(frames: &[Frame]) -> Vec<Frame> {
        let mut is_caller = false;
        let is_kept = |frame: &&Frame| {
            is_caller = frame.name == "runtime.cgocallback" || (is_caller && frame.is_c);
            !(is_caller && frame.is_c)
        };
        frames.iter().filter(is_kept).cloned().collect()
    }

    /// Whether Go's profile has no room for all of a stack.
    pub fn is_too_deep(frames: &[Frame]) -> bool {
        let longest = frames.chunk_by(|a, b| a.is_c && b.is_c).map(<[_]>::len).max();
        longest.is_some_and(|longest| longest > GO_SEGMENT) || frames.len() > GO_FRAMES
    }

    /// Whether each call of C is there, out to the stub by which cgo made it. That of `free` is not seen: it jumps.
    pub fn is_whole(frames: &[Frame]) -> bool {
        let is_call = |at: &[Frame]| at[0].is_c && !at[1].is_c;
        frames.windows(3).filter(|at| is_call(at)).all(|at| {
            at[1].name == "runtime.cgocall" && (is_stub(&at[0].name) || at[2].name == "main._Cfunc_free")
        })
    }

    /// The part of a stack that Go's profile has in any case.
    pub fn limited(frames: &[Frame]) -> Vec<Frame> {
        let mut of_segment = 0;
        let is_kept = |frame: &&Frame| {
            of_segment = if frame.is_c { of_segment + 1 } else { 0 };
            of_segment <= SEGMENT
        };
        frames.iter().filter(is_kept).take(FRAMES).cloned().collect()
    }

    fn at(&mut self, place: &Place) -> Vec<Frame> {
        let c = |name: String| vec![Frame { name, is_c: true }];
        let path = place.mapping.as_ref().map_or("", |mapping| &mapping.path);
        if path == "[vdso]" || path == "[kernel]" {
            return Vec::new();
        }
        if Path::new(path) != self.program {
            return c(self.of_library(path, place));
        }
        match place.names().last() {
            None => c(format!("{:#x}", place.address)),
            Some(_) if self.is_go(place) => {
                let frame = |name| Frame {
                    name: plain(name).to_owned(),
                    is_c: false,
                };
                place.names().map(frame).collect()
            }
            Some(name) => c(name.to_owned()),
        }
    }

    fn of_library(&mut self, path: &str, place: &Place) -> String {
        let functions = self
            .libraries
            .entry(path.to_owned())
            .or_insert_with(|| Functions::read(Path::new(path)).ok());
        let start = place
            .offset()
            .and_then(|offset| functions.as_ref()?.start(offset));
        let name = path.rsplit('/').next().unwrap_or_default();
        start.map_or_else(|| name.to_owned(), |start| format!("{name}+{start:#x}"))
    }
}

/// The stack from the innermost call of C, if the runtime is at a crossing between Go and C.
fn crossed(frames: &[Frame]) -> &[Frame] {
    let is_crossing = |frame: &Frame| {
        let name = &*frame.name;
        !frame.is_c && name != "runtime.cgocall" && (name.starts_with("runtime.") || ASSEMBLY.contains(&name))
    };
    let end = frames.iter().position(|frame| !is_crossing(frame));
    match end.map(|end| &frames[end..]) {
        Some([next, ..]) if next.name == "runtime.cgocall" || (next.is_c && end != Some(0)) => {
            let call = frames.iter().position(|frame| frame.name == "runtime.cgocall");
            call.map_or(frames, |call| &frames[call..])
        }
        _ => frames,
    }
}

/// Whether a signal handler is just returning to Go, by a function of libc that has no name.
fn is_returning(frames: &[Frame]) -> bool {
    matches!(frames, [code, go, ..] if code.is_c && !go.is_c && !CALLS.contains(&&*go.name))
}

/// Whether a function of C is one by which cgo calls another.
fn is_stub(name: &str) -> bool {
    name.starts_with("_cgo_") && name.contains("_Cfunc_")
}

/// The name without the linker's remark about how the function is called.
fn plain(name: &str) -> &str {
    name.trim_end_matches(".abi0")
}

#[cfg(test)]
mod tests {
    use super::{ASSEMBLY, Comparable, FRAMES, SEGMENT};
    use crate::traced::{Function, Mapping, Place, Traced};
    use std::collections::HashMap;
    use std::path::PathBuf;
    use std::rc::Rc;

    fn is_go(name: &str) -> bool {
        name.contains('.') || ASSEMBLY.contains(&name)
    }

    /// Places in the program have functions, from the innermost, with `<` between those that are inlined.
    fn shown(stack: &[&str]) -> Option<String> {
        let mapping = |path: &str| {
            Some(Rc::new(Mapping {
                start: 0,
                offset: 0,
                path: path.to_owned(),
            }))
        };
        let function = |name: &str| Function {
            name: name.to_owned(),
            place: String::new(),
        };
        let place = |functions: &&str| {
            let (mapping, functions) = match functions.strip_prefix('@') {
                Some(path) => (mapping(path), Vec::new()),
                None => (mapping("/p"), functions.split('<').map(function).collect()),
            };
            let is_go = functions.iter().any(|function| is_go(&function.name));
            Rc::new(Place {
                address: u64::from(is_go),
                mapping,
                functions,
            })
        };
        let traced = Traced {
            count: 1,
            places: stack.iter().map(place).collect(),
            labels: String::new(),
        };
        let mut comparable = Comparable {
            program: PathBuf::from("/p"),
            go: 1..2,
            libraries: HashMap::new(),
        };
        let frames = comparable.frames(&traced)?;
        let names: Vec<_> = frames.into_iter().map(|frame| frame.name).collect();
        Some(names.join(" "))
    }

    #[test]
    fn a_stack_of_go_and_one_of_ours_become_the_same() {
        let same = Some("leaf _cgo_1_Cfunc_a runtime.cgocall main.a main.work".to_owned());
        let go = ["leaf", "_cgo_1_Cfunc_a", "runtime.cgocall", "main.a<main.work"];
        assert_eq!(shown(&go), same);
        let ours = [
            "@[vdso]",
            "leaf",
            "_cgo_1_Cfunc_a",
            "runtime.asmcgocall.abi0",
            "runtime.cgocall",
            "main.a<main.work",
            "runtime.goexit.abi0",
        ];
        assert_eq!(shown(&ours), same);
    }

    #[test]
    fn what_is_left_of_another_context_is_no_part_of_the_stack() {
        let go = [
            "main.back",
            "runtime.cgocallback",
            "callback",
            "_cgo_1_Cfunc_a",
            "older",
            "_cgo_1_Cfunc_b",
            "runtime.systemstack_switch",
            "runtime.cgocall",
        ];
        let expected = "main.back runtime.cgocallback callback _cgo_1_Cfunc_a runtime.cgocall";
        assert_eq!(shown(&go).as_deref(), Some(expected));
    }

    #[test]
    fn the_runtime_between_go_and_c_is_left_out() {
        let expected = Some("runtime.cgocall main.a".to_owned());
        for crossing in [
            &[
                "runtime.casgstatus",
                "runtime.reentersyscall",
                "runtime.cgocall",
                "main.a",
            ][..],
            &[
                "runtime.cgocallback",
                "runtime.systemstack_switch",
                "runtime.cgocall",
                "main.a",
            ],
            &[
                "crosscall2",
                "callback",
                "runtime.asmcgocall",
                "runtime.cgocall",
                "main.a",
            ],
        ] {
            assert_eq!(shown(crossing), expected);
        }
        let in_go = [
            "runtime.memmove",
            "main.back",
            "runtime.cgocallback",
            "runtime.cgocall",
        ];
        assert_eq!(shown(&in_go), Some(in_go.join(" ")));
    }

    #[test]
    fn c_that_called_go_can_be_left_out() {
        let frame = |&(name, is_c): &(&str, bool)| super::Frame {
            name: name.to_owned(),
            is_c,
        };
        let stack = [
            ("leaf", true),
            ("runtime.cgocall", false),
            ("runtime.cgocallback", false),
            ("c", true),
            ("d", true),
        ];
        let stack: Vec<_> = stack.iter().map(frame).collect();
        assert_eq!(Comparable::without_callers(&stack), stack[..3]);
    }

    #[test]
    fn a_call_of_c_without_its_stub_is_not_whole() {
        let frames = |names: &[&str]| -> Vec<_> {
            let frame = |name: &&str| super::Frame {
                name: (*name).to_owned(),
                is_c: !is_go(name),
            };
            names.iter().map(frame).collect()
        };
        let whole = ["leaf", "_cgo_1_Cfunc_a", "runtime.cgocall", "main.a"];
        assert!(Comparable::is_whole(&frames(&whole)));
        assert!(!Comparable::is_whole(&frames(&[
            "leaf",
            "runtime.cgocall",
            "main.a"
        ])));
        assert!(!Comparable::is_whole(&frames(&[
            "_cgo_1_Cfunc_a",
            "runtime.x",
            "main.a"
        ])));
        assert!(Comparable::is_whole(&frames(&[
            "free",
            "runtime.cgocall",
            "main._Cfunc_free"
        ])));
    }

    #[test]
    fn libraries_are_named_and_handlers_are_not_compared() {
        assert_eq!(shown(&["@/missing/lib.so.1", "c"]).as_deref(), Some("lib.so.1 c"));
        assert_eq!(shown(&["x_cgo_callers", "main.a"]), None);
        assert_eq!(shown(&["@/lib/libc.so.6", "main.a"]), None);
    }

    #[test]
    fn long_segments_and_stacks_are_cut() {
        let frame = |is_c| super::Frame {
            name: "f".to_owned(),
            is_c,
        };
        let stack: Vec<_> = [vec![frame(true); 40], vec![frame(false); 60]].concat();
        let limited = Comparable::limited(&stack);
        assert_eq!(limited.iter().filter(|frame| frame.is_c).count(), SEGMENT);
        assert_eq!(limited.len(), FRAMES);
        assert!(Comparable::is_too_deep(&stack[7..41]) && Comparable::is_too_deep(&stack[35..]));
        assert!(!Comparable::is_too_deep(&stack[8..72]));
    }
}
