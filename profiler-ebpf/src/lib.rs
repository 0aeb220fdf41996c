//! The walk of a user stack, from registers to the outermost frame.
//!
//! This half of the crate knows no kernel: it is generic over a [`walk::Machine`], which reads memory and finds
//! rules. The BPF program (`program/`) is one machine; the host's tests have another with recorded stacks. So
//! what runs in the kernel and what is tested is the same code.
#![no_std]

pub mod walk;
