//! What one frame may be called.

use anyhow::{Result, bail};
use std::collections::HashSet;
use std::fmt;

/// Which functions of a target have names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symbols {
    /// All of them.
    All,
    /// Only Go's (from `.gopclntab`) and what the dynamic symbol table exports: `-ldflags "-s -w"`. Other
    /// functions of the executable are `[module+0xOFFSET]`.
    Stripped {
        /// File name of the executable.
        module: String,
    },
}

/// The name of a frame, or a class of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// A Go function, or another whose name survives stripping.
    Go(Glob),
    /// A function of the executable that only its symbol table names.
    Own(Glob),
    /// A function that the compiler put inside others: a frame only where debug information says so.
    Inlined(Glob),
    /// A function of the executable, not Go, that it exports dynamically.
    Exported(Glob),
    /// A named function of a system library, which has no names where its debug files are not installed.
    Library(Glob),
    /// Any function of a system library.
    AnyLibrary,
    /// Anything in the vDSO.
    Vdso,
    /// The Go runtime at work for the goroutine above it.
    GoRuntime,
    /// The Go runtime at work on a thread's own stack.
    GoScheduler,
    /// Where goroutines of the Go runtime itself start.
    GoEntry,
    /// The Go standard library.
    GoStd,
}

/// Whose calling conventions, and whose interruptions, a frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Go,
    C,
}

/// A name in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(String);

/// The crossings between Go and C, and the bottoms of stacks: true only where a specification names them.
const GO_GLUE: &[&str] = &[
    "runtime.asmcgocall",
    "runtime.asmcgocall_landingpad",
    "runtime.cgocall",
    "runtime.cgocallback",
    "runtime.cgocallbackg",
    "runtime.cgocallbackg1",
    "runtime.goexit",
    "runtime.main",
    "runtime.mcall",
    "runtime.morestack",
    "runtime.mstart",
    "runtime.rt0_go",
    // Pushed as a return address to mark a switched stack; nothing ever calls it.
    "runtime.systemstack_switch",
];

/// Assembly that calls one function. The runtime never works below it.
const GO_CALLS_NOTHING_ELSE: &[&str] = &["crosscall2", "runtime.goexit"];

/// What runs only once a thread has let go of its goroutine.
const GO_SCHEDULER: &[&str] = &[
    "runtime.execute",
    "runtime.findRunnable",
    "runtime.mstart0",
    "runtime.mstart1",
    "runtime.park_m",
    "runtime.schedule",
    "runtime.stealWork",
    "runtime.stopm",
    "runtime.sysmon",
];

/// Functions that the runtime starts as goroutines.
const GO_ENTRY: &[&str] = &[
    "os/signal.loop",
    "runtime.bgscavenge",
    "runtime.bgsweep",
    "runtime.ensureSigM.func1",
    "runtime.forcegchelper",
    "runtime.gcBgMarkWorker",
    "runtime.runCleanups",
    "runtime.runFinalizers",
    "runtime.runfinq",
];

/// Functions of the runtime whose names have another package or none: assembly, what the runtime does for `time`, and what the
/// compiler puts inside its functions.
const GO_NAMELESS: &[&str] = &[
    "aeshashbody",
    "callRet",
    "cmpbody",
    "countbody",
    "gcWriteBarrier",
    "gogo",
    "gosave_systemstack_switch",
    "indexbody",
    "indexbytebody",
    "memeqbody",
    "math/bits.Mul32",
    "math/bits.Mul64",
    "racecall",
    "racecalladdr",
    "racecallatomic",
    "racecallback",
    "racefuncenter",
    "setg_gcc",
    "time.newTimer",
    "time.resetTimer",
    "time.stopTimer",
];

impl Pattern {
    /// Reads `name`, `c:name`, `inlined:name`, `exported:name`, `libc:name` or `<class>`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if let Some(class) = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')) {
            return Ok(match class {
                "library" => Self::AnyLibrary,
                "vdso" => Self::Vdso,
                "go-runtime" => Self::GoRuntime,
                "go-scheduler" => Self::GoScheduler,
                "go-entry" => Self::GoEntry,
                "go-std" => Self::GoStd,
                _ => bail!("there is no class <{class}>"),
            });
        }
        if text.is_empty() || text.contains(' ') && !text.contains('<') && !text.contains('(') {
            bail!("not the name of a function: {text:?}");
        }
        // The colons of a C++ name come after the prefix.
        Ok(match text.split_once(':') {
            Some(("c", name)) => Self::Own(Glob(name.to_owned())),
            Some(("inlined", name)) => Self::Inlined(Glob(name.to_owned())),
            Some(("exported", name)) => Self::Exported(Glob(name.to_owned())),
            Some(("libc", name)) => Self::Library(Glob(name.to_owned())),
            _ => Self::Go(Glob(text.to_owned())),
        })
    }

    /// The language of the frame; `None` for a library's, and where only what a specification names may follow.
    pub(super) fn language(&self) -> Option<Language> {
        match self {
            Self::Go(name) if GO_CALLS_NOTHING_ELSE.contains(&name.0.as_str()) => None,
            Self::Go(_) | Self::GoRuntime | Self::GoScheduler | Self::GoEntry | Self::GoStd => {
                Some(Language::Go)
            }
            Self::Own(_) | Self::Inlined(_) | Self::Exported(_) | Self::Library(_) => Some(Language::C),
            _ => None,
        }
    }

    /// The name, if the pattern is one function's.
    pub(super) fn name(&self) -> Option<&Glob> {
        match self {
            Self::Go(name)
            | Self::Own(name)
            | Self::Inlined(name)
            | Self::Exported(name)
            | Self::Library(name) => Some(name),
            _ => None,
        }
    }

    /// Whether `frame` fits. `own` are the names of functions that the specification knows.
    pub(super) fn matches(&self, frame: &str, symbols: &Symbols, own: &OwnNames) -> bool {
        match self {
            Self::Go(name) | Self::Exported(name) => name.matches(frame),
            Self::Own(name) => match symbols {
                Symbols::All => name.matches(frame),
                Symbols::Stripped { module } => nameless_in(frame) == Some(module),
            },
            Self::Inlined(name) => *symbols == Symbols::All && name.matches(frame),
            Self::Library(name) => name.matches(frame) || nameless_in(frame).is_some_and(is_system_library),
            Self::AnyLibrary => match nameless_in(frame) {
                Some(module) => is_system_library(module),
                None => !frame.starts_with('[') && !is_go(frame) && !own.contains(frame),
            },
            Self::Vdso => {
                frame.starts_with("__vdso_")
                    || frame == "clock_gettime"
                    || matches!(nameless_in(frame), Some("[vdso]" | "vdso" | "linux-vdso.so.1"))
            }
            Self::GoRuntime => is_go_runtime(frame) && !GO_SCHEDULER.contains(&frame) && !is_go_entry(frame),
            Self::GoScheduler => is_go_runtime(frame) && !is_go_entry(frame),
            Self::GoEntry => is_go_entry(frame),
            Self::GoStd => is_go_std(frame) && !GO_GLUE.contains(&frame),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AnyLibrary => "<library>",
            Self::Vdso => "<vdso>",
            Self::GoRuntime => "<go-runtime>",
            Self::GoScheduler => "<go-scheduler>",
            Self::GoEntry => "<go-entry>",
            Self::GoStd => "<go-std>",
            _ => self.name().map_or("", |name| &name.0),
        })
    }
}

impl Glob {
    fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
            return false;
        };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else {
            return rest.is_empty();
        };
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

/// The names of all functions that a specification knows: a library has none of them.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnNames {
    exact: HashSet<String>,
    globs: Vec<Glob>,
}

impl OwnNames {
    pub(super) fn insert(&mut self, pattern: &Pattern) {
        // A library's function may be anywhere in a library.
        if matches!(pattern, Pattern::Library(_)) {
            return;
        }
        match pattern.name() {
            Some(name) if name.0.contains('*') => self.globs.push(name.clone()),
            Some(name) => {
                self.exact.insert(name.0.clone());
            }
            None => {}
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.exact.contains(name) || self.globs.iter().any(|glob| glob.matches(name))
    }
}

/// The module of a frame `[module+0xOFFSET]`.
fn nameless_in(frame: &str) -> Option<&str> {
    let (module, offset) = frame.strip_prefix('[')?.strip_suffix(']')?.rsplit_once("+0x")?;
    let is_offset = !offset.is_empty() && offset.bytes().all(|b| b.is_ascii_hexdigit());
    is_offset.then_some(module)
}

fn is_system_library(module: &str) -> bool {
    [
        "libc.so",
        "libc-",
        "ld-linux",
        "libstdc++.so",
        "libgcc_s.so",
        "libm.so",
        "libpthread",
    ]
    .iter()
    .any(|name| module.starts_with(name))
}

/// The import path of a Go function: what is before the first dot after the last slash before any bracket.
fn go_package(frame: &str) -> Option<&str> {
    let plain = &frame[..frame.find(['(', '[']).unwrap_or(frame.len())];
    let last_element = plain.rfind('/').map_or(0, |slash| slash + 1);
    let dot = last_element + plain[last_element..].find('.')?;
    (dot > 0).then(|| &frame[..dot])
}

fn is_go_std(frame: &str) -> bool {
    const STD: &[&str] = &[
        "bufio", "bytes", "cmp", "errors", "fmt", "internal", "io", "os", "reflect", "runtime", "slices",
        "sort", "strconv", "strings", "sync", "syscall", "time", "unicode", "unsafe",
    ];
    go_package(frame).is_some_and(|package| STD.contains(&package.split('/').next().unwrap_or(package)))
        || GO_NAMELESS.contains(&frame)
}

fn is_go(frame: &str) -> bool {
    is_go_std(frame)
        || go_package(frame) == Some("main")
        || frame.starts_with("_cgoexp_")
        || frame == "crosscall2"
}

fn is_go_runtime(frame: &str) -> bool {
    let of_runtime = go_package(frame).is_some_and(|package| {
        matches!(package.split('/').next(), Some("runtime" | "internal" | "sync"))
            && package != "runtime/pprof"
    });
    // Go 1.27 forgets the package of closures in functions that it puts inside others of another package.
    (of_runtime || frame.starts_with("_.") || GO_NAMELESS.contains(&frame) || is_race_detector(frame))
        && !GO_GLUE.contains(&frame)
}

/// The C++ that programs have in them which are built with `-race` (runtime/race).
fn is_race_detector(frame: &str) -> bool {
    ["__tsan", "__sanitizer"]
        .iter()
        .any(|name| frame.starts_with(name))
}

fn is_go_entry(frame: &str) -> bool {
    GO_ENTRY.contains(&frame)
}

#[cfg(test)]
mod tests {
    use super::{OwnNames, Pattern, Symbols, go_package};

    fn fits(pattern: &str, frame: &str) -> bool {
        let mut own = OwnNames::default();
        own.insert(&Pattern::parse("c:c_leaf").unwrap());
        Pattern::parse(pattern)
            .unwrap()
            .matches(frame, &Symbols::All, &own)
    }

    #[test]
    fn packages_of_go_functions_are_found() {
        assert_eq!(go_package("runtime.mallocgc"), Some("runtime"));
        assert_eq!(
            go_package("internal/runtime/maps.(*Map).Put"),
            Some("internal/runtime/maps")
        );
        assert_eq!(go_package("slices.pdqsort[go.shape.int]"), Some("slices"));
        assert_eq!(go_package("c_leaf"), None);
        assert_eq!(go_package("_start"), None);
    }

    #[test]
    fn the_runtime_is_not_its_glue() {
        assert!(fits("<go-runtime>", "runtime.mallocgc"));
        assert!(fits("<go-runtime>", "runtime.(*mcache).refill"));
        assert!(fits("<go-runtime>", "gosave_systemstack_switch"));
        for glue in [
            "runtime.cgocall",
            "runtime.systemstack_switch",
            "runtime.goexit",
            "main.main",
        ] {
            assert!(!fits("<go-runtime>", glue), "{glue}");
        }
        assert!(!fits("<go-runtime>", "runtime.schedule"));
        assert!(fits("<go-scheduler>", "runtime.schedule"));
    }

    #[test]
    fn a_library_has_no_function_of_the_target() {
        assert!(fits("<library>", "_Unwind_RaiseException"));
        assert!(fits("<library>", "[libgcc_s.so.1+0x1234]"));
        assert!(!fits("<library>", "c_leaf"));
        assert!(!fits("<library>", "main.goBurn"));
        assert!(!fits("<library>", "[c_deep+0x1234]"));
        assert!(!fits("<library>", "[incomplete: no-rule]"));
    }

    #[test]
    fn a_stripped_target_has_names_for_go_and_exports_only() {
        let stripped = Symbols::Stripped {
            module: "go_nested".to_owned(),
        };
        let own = OwnNames::default();
        let fits =
            |pattern: &str, frame: &str| Pattern::parse(pattern).unwrap().matches(frame, &stripped, &own);
        assert!(fits("c:c_leaf", "[go_nested+0x1f3a]"));
        assert!(!fits("c:c_leaf", "c_leaf"));
        assert!(!fits("c:c_leaf", "[libc.so.6+0x1f3a]"));
        assert!(!fits("c:c_leaf", "[go_nested]"));
        assert!(fits("exported:goMid", "goMid"));
        assert!(fits("main.goMid", "main.goMid"));
    }

    #[test]
    fn a_star_stands_for_the_hash_of_cgo() {
        assert!(fits("c:_cgo_*_Cfunc_c_outer", "_cgo_a96c25fe52ac_Cfunc_c_outer"));
        assert!(!fits("c:_cgo_*_Cfunc_c_outer", "_cgo_a96c25fe52ac_Cfunc_c_mid"));
    }
}
