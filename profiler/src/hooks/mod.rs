//! Traceback hooks: functions by which a program explains its own stacks, in the protocol of version 0 of
//! `runtime.SetCgoTraceback`. A *traceback* function lists the addresses of a C stack, a *symbolizer* names them.
//!
//! This module is the protocol without its transport: what to ask a hook next and what its answer means, never how a
//! function in another process is called. Nothing here does I/O or reads a clock, and everything that a hook says is
//! foreign: bounded, counted, and believed only as far as it goes.

pub mod answer;
pub mod join;
pub mod symbolizer;
pub mod table;

pub use answer::{Answer, PcList};
pub use join::Join;
pub use symbolizer::Symbolizer;
pub use table::Table;
