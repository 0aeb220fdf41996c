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
//! Samples without an answer are compared by their other frames, and counted: those taken in the kernel, where hooks are
//! not asked, and those whose answer did not come.

use crate::pprof::{Frame, Sample};
use crate::stats::Counts;
use std::collections::BTreeMap;

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

/// Two profiles in one form.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Ours.
    pub ours: Stacks,
    /// Go's own.
    pub theirs: Stacks,
    /// Our samples with frames that hooks gave.
    pub answered: u64,
    /// Our samples of user code that should have some and have none.
    pub unanswered: u64,
    /// Our samples that were taken in the kernel, where hooks are not asked, and would have some otherwise.
    pub in_kernel: u64,
    /// Our samples of signal handlers, which are not compared.
    pub in_handler: u64,
}

/// The stacks of a profile, innermost frame first, as lines of `function file:line`.
#[derive(Clone, Debug, Default)]
pub struct Stacks {
    /// How often each was seen, without the frames that hooks gave.
    pub seen: Counts,
    /// For each of these: with these frames, where there are some.
    pub whole: BTreeMap<String, Counts>,
    /// Samples that hooks have something to say about, and the others.
    pub said: Counts,
}

/// A frame of a stack in the common form.
struct Line {
    text: String,
    is_said: bool,
}

impl Stacks {
    fn add(&mut self, lines: &[Line], is_complete: bool, count: u64) {
        let join = |lines: &mut dyn Iterator<Item = &Line>| {
            let texts: Vec<&str> = lines.map(|line| line.text.as_str()).collect();
            texts.join("\n")
        };
        let seen = join(&mut lines.iter().filter(|line| !line.is_said));
        let is_said = lines.iter().any(|line| line.is_said);
        if is_said && is_complete {
            let whole = self.whole.entry(seen.clone()).or_default();
            *whole.entry(join(&mut lines.iter())).or_default() += count;
        }
        let said = if is_said || !is_complete {
            "said"
        } else {
            "not said"
        };
        *self.said.entry(said.to_owned()).or_default() += count;
        *self.seen.entry(seen).or_default() += count;
    }

    /// Samples with frames of hooks that `other` has at no sample of the same stack, though it has frames of hooks there;
    /// and one of their stacks.
    pub fn not_in(&self, other: &Self) -> (u64, Option<&String>) {
        let mut strange = (0, None);
        for (seen, stacks) in &self.whole {
            let Some(others) = other.whole.get(seen) else {
                continue;
            };
            for (stack, count) in stacks.iter().filter(|(stack, _)| !others.contains_key(*stack)) {
                strange = (strange.0 + count, Some(stack));
            }
        }
        strange
    }
}

impl Compared {
    /// Brings the samples of both into one form.
    pub fn new(ours: &[Sample], theirs: &[Sample], hooks: &Hooks<'_>) -> Self {
        let mut compared = Self::default();
        let is_within = |sample: &&Sample| sample.frames.iter().any(|frame| frame.function == hooks.within);
        for sample in ours.iter().filter(is_within) {
            let n = sample.count;
            if sample.frames.iter().any(is_handler) {
                compared.in_handler += n;
                continue;
            }
            let (lines, is_complete) = hooks.ours(&sample.frames);
            compared.ours.add(&lines, is_complete, n);
            match (is_complete, sample.from_kernel) {
                (true, _) if lines.iter().any(|line| line.is_said) => compared.answered += n,
                (true, _) => {}
                (false, true) => compared.in_kernel += n,
                (false, false) => compared.unanswered += n,
            }
        }
        for sample in theirs.iter().filter(is_within) {
            if let Some(lines) = hooks.theirs(&sample.frames) {
                compared.theirs.add(&lines, true, sample.count);
            }
        }
        compared
    }
}

impl Hooks<'_> {
    /// One of our stacks in the common form, and whether it has all frames that hooks should have given.
    fn ours(&self, frames: &[Frame]) -> (Vec<Line>, bool) {
        let mut kept: Vec<&Frame> = Vec::new();
        let mut is_complete = true;
        // Whether there is Go code below a C segment, and whether that is a callback that has its context.
        let (mut in_go, mut is_exported) = (false, false);
        for run in frames.chunk_by(|a, b| is_native(a) == is_native(b)) {
            if !is_native(&run[0]) {
                in_go |= !run.iter().all(is_switch);
                is_exported = run.iter().any(is_exported_function);
                kept.extend(run.iter().filter(|frame| !is_switch(frame)));
            } else if run.iter().all(|frame| self.is_said(frame)) {
                kept.extend(run);
            } else if in_go {
                is_complete &= !(self.contexts && is_exported);
            } else {
                is_complete &= !self.leaf || is_vdso(&run[0]);
            }
        }
        (self.in_one_form(&kept, 0), is_complete)
    }

    /// One of Go's stacks in the common form; `None` if Go lost it.
    fn theirs(&self, frames: &[Frame]) -> Option<Vec<Line>> {
        if frames
            .iter()
            .any(|frame| frame.function == "runtime._LostExternalCode")
        {
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
        let preempted = kept
            .first()
            .is_some_and(|frame| frame.function == "runtime.asyncPreempt");
        Some(self.in_one_form(&kept[usize::from(preempted)..], u64::from(!self.symbolizer)))
    }

    /// What holds for both: on the way between Go and C, the outer Go function is taken to be at its call of C. What is
    /// missing of addresses that hooks gave is added.
    fn in_one_form(&self, mut frames: &[&Frame], missing: u64) -> Vec<Line> {
        let callback = frames
            .iter()
            .position(|frame| frame.function == "runtime.cgocallback");
        let on_the_way = callback.filter(|&at| !frames[..at].iter().any(|frame| is_exported_function(frame)));
        if let Some(callback) = on_the_way {
            frames = &frames[callback + 1..];
        }
        let is_between = |frame: &&Frame| is_runtime(frame) || self.is_said(frame);
        let call = frames
            .iter()
            .position(|frame| frame.function == "runtime.cgocall")
            .filter(|&call| frames[..call].iter().all(is_between));
        let innermost = call.filter(|&call| frames[..call].iter().all(|frame| is_runtime(frame)));
        let line = |(at, frame): (usize, &&Frame)| Line {
            text: match frame.function.as_str() {
                function if Some(at) == call => function.to_owned(),
                function if self.is_said(frame) && !self.symbolizer => {
                    format!("{function} {:#x}", frame.address + missing)
                }
                function => format!("{function} {}", frame.place),
            },
            is_said: self.is_said(frame),
        };
        let lines = frames.iter().enumerate().skip(innermost.unwrap_or(0)).map(line);
        lines
            .filter(|line| on_the_way.is_none() || !line.is_said)
            .collect()
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

#[cfg(test)]
mod tests {
    use super::{Compared, Hooks};
    use crate::pprof::{Frame, Sample};

    const HOOKS: Hooks<'_> = Hooks {
        within: "main.f",
        frames: &["c"],
        leaf: true,
        contexts: true,
        symbolizer: true,
        context_of: |frame| frame.address / 0x100,
    };

    /// `function@address`, innermost first; the address is that of the line, too.
    fn sample(frames: &str) -> Sample {
        let frame = |text: &str| {
            let (function, address) = text.split_once('@').unwrap_or((text, "0"));
            Frame {
                function: function.to_owned(),
                place: format!("a.go:{address}"),
                address: u64::from_str_radix(address, 16).unwrap(),
            }
        };
        Sample {
            count: 1,
            frames: frames.split(' ').map(frame).collect(),
            from_kernel: false,
        }
    }

    fn both(hooks: &Hooks<'_>, ours: &str, theirs: &str) -> Compared {
        Compared::new(&[sample(ours)], &[sample(theirs)], hooks)
    }

    fn are_equal(compared: &Compared) -> bool {
        let (ours, theirs) = (&compared.ours, &compared.theirs);
        ours.seen == theirs.seen && ours.whole == theirs.whole && ours.said == theirs.said
    }

    #[test]
    fn what_go_is_known_to_lack_or_to_add_makes_no_difference() {
        for (ours, theirs) in [
            // In C, as the hook says.
            (
                "c@1 runtime.asmcgocall runtime.cgocall@185 main.f runtime.goexit",
                "c@1 runtime.cgocall@167 main.f",
            ),
            // In a callback, with a context; Go has an older one's frame after it.
            (
                "runtime.x main.g _cgoexp_g runtime.cgocallback crosscall2 c@200 runtime.asmcgocall runtime.cgocall@185 \
                 main.h _cgoexp_h runtime.cgocallback crosscall2 c@100 runtime.asmcgocall runtime.cgocall@185 main.f",
                "runtime.x main.g _cgoexp_g runtime.cgocallback c@200 runtime.systemstack_switch runtime.cgocall@185 main.h \
                 _cgoexp_h runtime.cgocallback c@100 c@201 runtime.systemstack_switch runtime.cgocall@185 main.f",
            ),
            // On the way into a callback.
            (
                "runtime.cgocallbackg1 runtime.cgocallback crosscall2 g stub runtime.asmcgocall runtime.cgocall@185 main.f",
                "runtime.cgocall@167 main.f",
            ),
            (
                "runtime.entersyscall runtime.cgocall@167 main.f",
                "runtime.cgocall@166 main.f",
            ),
            (
                "__vdso_clock_gettime runtime.nanotime1 main.f",
                "runtime.nanotime1 main.f",
            ),
            ("main.f@7", "runtime.asyncPreempt main.f@7"),
        ] {
            let compared = both(&HOOKS, ours, theirs);
            assert!(are_equal(&compared), "{ours}: {compared:?}");
            assert_eq!(compared.ours.seen.len(), 1);
        }
    }

    #[test]
    fn any_other_difference_is_one() {
        for (ours, theirs) in [
            ("main.g@1 main.f", "main.g@2 main.f"),
            ("main.g main.f", "main.f"),
            (
                "c@1 runtime.asmcgocall runtime.cgocall main.f",
                "c@2 runtime.cgocall main.f",
            ),
            (
                "main.g _cgoexp_g runtime.cgocallback crosscall2 c@200 runtime.asmcgocall runtime.cgocall@1 main.f",
                "main.g _cgoexp_g runtime.cgocallback c@200 runtime.systemstack_switch runtime.cgocall@2 main.f",
            ),
        ] {
            let compared = both(&HOOKS, ours, theirs);
            assert!(!are_equal(&compared), "{ours}");
        }
    }

    #[test]
    fn without_a_symbolizer_addresses_are_compared_and_go_has_one_less() {
        let hooks = Hooks {
            symbolizer: false,
            ..HOOKS
        };
        let ours = "c@11 runtime.asmcgocall runtime.cgocall main.f";
        let compared = both(&hooks, ours, "c@10 runtime.cgocall main.f");
        assert!(are_equal(&compared));
        let compared = both(&hooks, ours, "c@11 runtime.cgocall main.f");
        assert!(!are_equal(&compared));
        assert_eq!(compared.ours.not_in(&compared.theirs).0, 1);
    }

    #[test]
    fn samples_without_an_answer_are_counted_and_compared_by_the_rest() {
        let walked = "d stub runtime.asmcgocall runtime.cgocall main.f";
        let compared = both(&HOOKS, walked, "runtime._LostExternalCode main.f");
        assert_eq!((compared.unanswered, compared.answered), (1, 0));
        assert!(compared.ours.whole.is_empty() && compared.theirs.seen.is_empty());
        let compared = both(&HOOKS, walked, "c@1 runtime.cgocall main.f");
        assert_eq!(
            (&compared.ours.seen, &compared.ours.said),
            (&compared.theirs.seen, &compared.theirs.said)
        );
        let kernel = Sample {
            from_kernel: true,
            ..sample(walked)
        };
        assert_eq!(Compared::new(&[kernel], &[], &HOOKS).in_kernel, 1);
        let compared = both(&HOOKS, &format!("runtime.sigtramp {walked}"), "main.g");
        assert_eq!(compared.in_handler, 1);
        // A program whose hook says nothing about interrupted C has no answer to wait for.
        let silent = Hooks { leaf: false, ..HOOKS };
        let compared = both(&silent, walked, "runtime.cgocall main.f");
        assert!(compared.unanswered == 0 && are_equal(&compared));
    }
}
