//! Our stacks and those of Go's own CPU profile of the same program, in one form, so that they can be compared.
//!
//! Both are to be equal, function by function and line by line. These differences are allowed, and no others:
//!
//! | difference | reason |
//! |---|---|
//! | `runtime.goexit` is ours only | Go leaves the root of goroutines out (runtime/pprof/proto.go, `allFrames`) |
//! | `runtime.asmcgocall` and `crosscall2` are ours, `runtime.systemstack_switch` is Go's | what Go resumes at is the return address that it faked for `asmcgocall` (runtime/asm_amd64.s, `gosave_systemstack_switch`) |
//! | functions of the vDSO are ours only | Go starts at their caller (runtime/proc.go, `sigprof`) |
//! | `runtime.asyncPreempt` is innermost in Go's only | the signals for preemption and for samples wait for the same tick, and the handler of the first one injects that call |
//! | in a call of C, Go has nothing of `runtime.cgocall` but the call of `entersyscall` | it starts from `g.syscallpc` (runtime/proc.go, `sigprof`) |
//! | on the way into a callback and out of it, Go has nothing of the callback, and the contexts of other callbacks | as long as `g.syscallpc` is set it starts from there, and it takes the newest context for that of the innermost callback, which may not have stored its own yet |
//! | C that hooks say nothing about is ours only | Go knows no other source |
//! | a context's frames are followed by older ones in Go's | a hook need not end its list, and Go does not clear the buffer (runtime/traceback.go, `tracebackPCs`) |
//! | signal handlers are ours only | Go blocks its signal for samples in them |
//! | without a symbolizer, addresses that a hook gave are less by one in Go's | against the protocol, it takes an address that it cannot name for a return address (runtime/pprof/proto.go, `allFrames`) |
//! | `runtime._LostExternalCode` is Go's only | it has room for some hundred samples of threads that it does not know, until one of another thread comes (runtime/cpuprof.go, `addNonGo`) |
//!
//! Not compared, but counted, are samples without an answer: those taken in the kernel, where hooks are not asked, and
//! those whose answer did not come.

use crate::pprof::{Frame, Sample};
use crate::stats::Counts;

/// What the hooks of a program say.
#[derive(Clone, Copy, Debug)]
pub struct Hooks<'a> {
    /// Stacks with this function are compared.
    pub within: &'a str,
    /// The names of all frames that they give.
    pub frames: &'a [&'a str],
    /// Whether they say something about interrupted C.
    pub leaf: bool,
    /// Whether callbacks have contexts.
    pub contexts: bool,
    /// Whether there is a symbolizer. If not, addresses are compared instead of lines.
    pub symbolizer: bool,
    /// Which context a frame is of, for hooks that do not end their lists; the same for all frames elsewhere.
    pub context_of: fn(&Frame) -> u64,
}

/// Two profiles in one form: stacks, innermost frame first, as lines of `function file:line`.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Our samples.
    pub ours: Counts,
    /// Those of Go's own profile.
    pub theirs: Counts,
    /// Our samples of user code that should have an answer and have none.
    pub unanswered: u64,
    /// Our samples that were taken in the kernel where hooks would have had something to say.
    pub in_kernel: u64,
    /// Our samples of signal handlers.
    pub in_handler: u64,
}

/// What one of our samples is.
enum Ours {
    Stack(String),
    Unanswered,
    InHandler,
}

impl Compared {
    /// Brings the samples of both into one form.
    pub fn new(ours: &[Sample], theirs: &[Sample], hooks: &Hooks<'_>) -> Self {
        let mut compared = Self::default();
        let is_within = |sample: &&Sample| sample.frames.iter().any(|frame| frame.function == hooks.within);
        for sample in ours.iter().filter(is_within) {
            let counted = match hooks.ours(&sample.frames) {
                Ours::Stack(stack) => compared.ours.entry(stack).or_default(),
                Ours::InHandler => &mut compared.in_handler,
                Ours::Unanswered if sample.from_kernel => &mut compared.in_kernel,
                Ours::Unanswered => &mut compared.unanswered,
            };
            *counted += sample.count;
        }
        for sample in theirs.iter().filter(is_within) {
            if let Some(stack) = hooks.theirs(&sample.frames) {
                *compared.theirs.entry(stack).or_default() += sample.count;
            }
        }
        compared
    }
}

impl Hooks<'_> {
    fn ours(&self, frames: &[Frame]) -> Ours {
        if frames.iter().any(is_handler) {
            return Ours::InHandler;
        }
        let mut kept: Vec<&Frame> = Vec::new();
        // Whether there is Go code below a C segment, and whether that is a callback that has its context.
        let (mut in_go, mut is_exported) = (false, false);
        for run in frames.chunk_by(|a, b| is_native(a) == is_native(b)) {
            if !is_native(&run[0]) {
                in_go |= !run.iter().all(is_switch);
                is_exported = run.iter().any(is_exported_function);
                kept.extend(run.iter().filter(|frame| !is_switch(frame)));
            } else if run.iter().all(|frame| self.is_said(frame)) {
                kept.extend(run);
            } else if if in_go { self.contexts && is_exported } else { self.leaf && !is_vdso(&run[0]) } {
                return Ours::Unanswered;
            }
        }
        Ours::Stack(self.in_one_form(&kept, 0))
    }

    /// The stack in the common form; `None` if Go lost it.
    fn theirs(&self, frames: &[Frame]) -> Option<String> {
        if frames.iter().any(|frame| frame.function == "runtime._LostExternalCode") {
            return None;
        }
        let kept: Vec<&Frame> = frames
            .chunk_by(|a, b| self.is_said(a) == self.is_said(b))
            .flat_map(|run| {
                let first = (self.context_of)(&run[0]);
                run.iter()
                    .filter(move |frame| !self.is_said(frame) || (self.context_of)(frame) == first)
            })
            .filter(|frame| !is_switch(frame))
            .collect();
        let preempted = kept.first().is_some_and(|frame| frame.function == "runtime.asyncPreempt");
        Some(self.in_one_form(&kept[usize::from(preempted)..], u64::from(!self.symbolizer)))
    }

    /// What holds for both: on the way between Go and C, the outer Go function is taken to be at its call of C. What is
    /// missing of addresses that hooks gave is added.
    fn in_one_form(&self, mut frames: &[&Frame], missing: u64) -> String {
        let mut said = true;
        if let Some(callback) = frames.iter().position(|frame| frame.function == "runtime.cgocallback")
            && !frames[..callback].iter().any(|frame| is_exported_function(frame))
        {
            frames = &frames[callback + 1..];
            said = false;
        }
        let mut is_calling = false;
        if let Some(call) = frames.iter().position(|frame| frame.function == "runtime.cgocall")
            && frames[..call].iter().all(|frame| is_runtime(frame) || self.is_said(frame))
        {
            is_calling = true;
            if frames[..call].iter().all(|frame| is_runtime(frame)) {
                frames = &frames[call..];
            }
        }
        let mut lines = Vec::new();
        for frame in frames {
            if self.is_said(frame) {
                if !said {
                    continue;
                }
                if !self.symbolizer {
                    lines.push(format!("{} {:#x}", frame.function, frame.address + missing));
                    continue;
                }
            }
            if is_calling && frame.function == "runtime.cgocall" {
                is_calling = false;
                lines.push(frame.function.clone());
                continue;
            }
            lines.push(format!("{} {}", frame.function, frame.place));
        }
        lines.join("\n")
    }

    fn is_said(&self, frame: &Frame) -> bool {
        self.frames.contains(&&*frame.function)
    }
}

/// How Go changes stacks.
fn is_switch(frame: &Frame) -> bool {
    matches!(
        &*frame.function,
        "runtime.asmcgocall" | "crosscall2" | "runtime.systemstack_switch" | "runtime.goexit"
    )
}

/// What cgo generates for an exported function. While it runs, the callback has its context.
fn is_exported_function(frame: &Frame) -> bool {
    frame.function.starts_with("_cgoexp_")
}

fn is_runtime(frame: &Frame) -> bool {
    frame.function.starts_with("runtime.") || frame.function.starts_with("internal/runtime/")
}

fn is_handler(frame: &Frame) -> bool {
    matches!(
        &*frame.function,
        "runtime.sigtramp" | "runtime.cgoSigtramp" | "runtime.sigreturn__sigaction" | "x_cgo_callers"
    )
}

fn is_vdso(frame: &Frame) -> bool {
    frame.function.starts_with("__vdso_") || frame.function.contains("vdso]")
}

/// Whether a function is C. Go's have the name of their package, except some in assembly, and what cgo generates.
fn is_native(frame: &Frame) -> bool {
    let name = &*frame.function;
    let is_go = name == "crosscall2" || is_exported_function(frame) || name.ends_with("body");
    name.starts_with('[') || name.starts_with("0x") || !is_go && !name.contains('.')
}
