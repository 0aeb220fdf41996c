//! What the walk has to know about the Go runtime of a process: where g is and where its fields are.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most Go runtimes of a process that walks can tell apart. A program has one; each shared library that was built with
/// Go brings another.
pub const MAX_RUNTIMES: usize = 4;

/// Offsets in the structs of one Go runtime, in bytes. They differ between releases; user space finds them
/// (see `target::go`) and the walk only uses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GoLayout {
    /// Whether the process has a Go runtime that we know: 0 or 1.
    pub present: u32,
    /// `g.m`.
    pub g_m: u32,
    /// Address of g relative to the thread pointer (the base of the `fs` segment on x86-64).
    pub tls_g: i64,
    /// `g.stack.hi`.
    pub g_stack_hi: u32,
    /// `g.sched.sp`.
    pub g_sched_sp: u32,
    /// `g.sched.pc`.
    pub g_sched_pc: u32,
    /// `g.goid`.
    pub g_goid: u32,
    /// `m.g0`.
    pub m_g0: u32,
    /// `m.curg`.
    pub m_curg: u32,
    /// First address of `crosscall2` in the process, to check that a `cgocallback` frame is one; 0 in a program
    /// without cgo.
    pub crosscall2: u64,
    /// Size of `crosscall2`, in bytes.
    pub crosscall2_size: u64,
    /// First address of the runtime's Go code in the process.
    pub text: u64,
    /// Size of that code, in bytes.
    pub text_size: u64,
    /// `g.labels`; 0 in a program that cannot have any.
    pub g_labels: u32,
    /// How labels are kept: [`GoLayout::LABEL_MAP`] or [`GoLayout::LABEL_LIST`].
    pub label_form: u32,
}

impl GoLayout {
    /// `map[string]string`, up to Go 1.23 (runtime/pprof/label.go).
    pub const LABEL_MAP: u32 = 0;
    /// A slice of pairs of strings, since Go 1.24.
    pub const LABEL_LIST: u32 = 1;
}
