//! The types of a profile. Handles instead of indices: each names the table it belongs to.

use super::Summary;
use profiler_abi::stop::StopReason;
use std::time::{Duration, SystemTime};

/// Handle of a [`Frame`] in [`Profile::frames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub u32);

/// Handle of a stack: a node of the tree [`Profile::stacks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackId(pub u32);

/// Handle of a [`Thread`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(pub u32);

/// Handle of a set of labels in [`Profile::labels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelsId(pub u32);

/// Handle of a [`Module`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleId(pub u32);

/// What kind of code a frame is; decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The kernel.
    Kernel,
    /// Go, the runtime's assembly included.
    Go,
    /// C, C++ or anything else native that does not say it is something else.
    Native,
    /// Rust.
    Rust,
    /// Code without a name.
    Unknown,
}

impl Kind {
    /// Every kind, in the order of a legend.
    pub const ALL: [Self; 5] = [Self::Kernel, Self::Go, Self::Native, Self::Rust, Self::Unknown];

    /// The word for it in labels and legends.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Go => "Go",
            Self::Native => "C/C++",
            Self::Rust => "Rust",
            Self::Unknown => "unknown",
        }
    }
}

/// How we know a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The kernel's own unwinder gave it.
    Kernel,
    /// Our walk of the user stack gave it.
    Walked,
    /// A traceback hook of the program gave it.
    Hook,
}

impl Origin {
    /// The word for it in labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Walked => "walked",
            Self::Hook => "hook",
        }
    }
}

/// One logical frame: a function, or a function that the compiler put inside another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Plain name as the language writes it; `[module+0xOFFSET]` if it has none. Without the suffix that folded
    /// stacks give kernel frames.
    pub function: String,
    /// The name the linker knows it by, if it differs.
    pub system_name: Option<String>,
    /// Source file, if known.
    pub file: Option<String>,
    /// Line in it, if known; 1 is the first.
    pub line: Option<u32>,
    /// Line where the function starts, if known.
    pub start_line: Option<u32>,
    /// The object the code is in.
    pub module: Option<ModuleId>,
    /// Address of the instruction in the process (or kernel): for a caller, one before the return address.
    pub address: u64,
    /// What kind of code it is.
    pub kind: Kind,
    /// How we know it.
    pub origin: Origin,
    /// The compiler put the function inside the frame that follows towards the root.
    pub inlined: bool,
}

/// An object file, or a named area of memory, that frames are in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    /// Path as the process sees it, or a name in brackets (`[vdso]`, `[kernel]`).
    pub path: String,
    /// GNU or Go build id, in hexadecimal where it is binary.
    pub build_id: Option<String>,
    /// First address of the executable mapping.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Offset in the file that `start` is mapped from, in bytes.
    pub file_offset: u64,
}

/// A thread that was sampled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Thread {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the thread (`comm`).
    pub name: String,
    /// Name of its process; empty if it is not known.
    pub process: String,
}

/// Labels that a program gave to what it was doing (`pprof.Do` of Go): key and value, sorted by key.
pub type Labels = Vec<(String, String)>;

/// One stack of one thread, how often it was seen, and how its walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The leaf of the stack; `None` if not a single frame is known.
    pub stack: Option<StackId>,
    /// Whose stack it is.
    pub thread: ThreadId,
    /// How the walk ended.
    pub stop: StopReason,
    /// The sample interrupted kernel code.
    pub from_kernel: bool,
    /// What the program was doing, as it says itself.
    pub labels: Option<LabelsId>,
    /// How much of what the profile measures: see [`Measure`].
    pub count: u64,
}

/// What a profile measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// Time on a CPU, in samples.
    #[default]
    Cpu,
    /// Time off the CPU, in nanoseconds.
    OffCpu,
}

/// What stands outside of all frames of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// The values of these labels, outside of all others.
    pub tags: Vec<String>,
    /// The name of the process, if the thread's differs from it.
    pub process: bool,
    /// The name of the process always, and the id of the thread beside its name.
    pub per_thread: bool,
}

/// Facts about the recording as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Name of the program, or of the first of several.
    pub program: String,
    /// The processes that were asked for.
    pub pids: Vec<u32>,
    /// When the recording began.
    pub start: SystemTime,
    /// How long it ran.
    pub duration: Duration,
    /// Samples per second and CPU; 0 if the file that the profile was read from does not say.
    pub frequency_hz: u64,
    /// Facts of host and target that matter when profiles are compared (kernel, CPU, Go version): name, value.
    pub facts: Vec<(String, String)>,
    /// What the numbers of its samples are.
    pub measure: Measure,
    /// What stands outside of all stacks.
    pub roots: Roots,
}

/// A whole recording. Made by [`super::Builder`].
#[derive(Clone, Debug)]
pub struct Profile {
    /// Facts about the recording.
    pub meta: Meta,
    /// Every distinct frame.
    pub frames: Vec<Frame>,
    /// Stacks as a tree: each node is a frame and the node of its caller, which has a smaller number.
    pub stacks: Vec<(FrameId, Option<StackId>)>,
    /// Objects that frames are in.
    pub modules: Vec<Module>,
    /// Threads that were sampled.
    pub threads: Vec<Thread>,
    /// Every distinct set of labels.
    pub labels: Vec<Labels>,
    /// The samples; no two agree in everything but the count.
    pub samples: Vec<Sample>,
    /// What was taken, kept and lost.
    pub summary: Summary,
}

impl Profile {
    /// The frames of a stack, leaf first.
    pub fn walk(&self, leaf: Option<StackId>) -> impl Iterator<Item = &Frame> {
        self.walk_ids(leaf)
            .map(|(_, frame)| &self.frames[frame.0 as usize])
    }

    /// The nodes and frame handles of a stack, leaf first.
    pub fn walk_ids(&self, leaf: Option<StackId>) -> impl Iterator<Item = (StackId, FrameId)> {
        let mut next = leaf;
        std::iter::from_fn(move || {
            let at = next?;
            let (frame, caller) = self.stacks[at.0 as usize];
            next = caller;
            Some((at, frame))
        })
    }

    /// Nanoseconds that one sample stands for; 0 if that is not known.
    pub fn period_ns(&self) -> u64 {
        1_000_000_000_u64.checked_div(self.meta.frequency_hz).unwrap_or(0)
    }
}
