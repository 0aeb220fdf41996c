//! Calls of kernel functions that not every kernel has.
//!
//! A kernel function that is no helper is called by the id of its type in the running kernel's BTF, which differs from
//! kernel to kernel. In the built object such a call is one of a helper that does not exist; before the object is
//! loaded, user space makes it the call that is meant, or, where the kernel has no such function, the result
//! [`MISSING`].

/// `bpf_send_signal_task(task, signal, kind, cookie)` (kernel/trace/bpf_trace.c, Linux 6.13): the number of the helper
/// that stands for it.
pub const SEND_SIGNAL_TASK: u32 = 0x6b66_0001;

/// What the call gives where the kernel has no such function: `-ENOSYS`.
pub const MISSING: i32 = -38;
