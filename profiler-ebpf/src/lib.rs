//! What the BPF program decides, as code that also runs elsewhere: the walk of a user stack, from registers to the
//! outermost frame, and the count of ticks that never came.
//!
//! This half of the crate knows no kernel: the walk is generic over a [`walk::Machine`], which reads memory and finds
//! rules. The BPF program (`bpf/`) is one machine; the host's tests have another with recorded stacks. So
//! what runs in the kernel and what is tested is the same code.
#![no_std]

pub mod ticks;
pub mod walk;
