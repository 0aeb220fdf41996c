//! Where each instruction's caller is: unwind rules for the code of an object, from whatever describes it.
//!
//! Everything here turns bytes into [`Row`]s and does nothing else: no I/O, no process, no clock.
//!
//! ```text
//! .eh_frame, .debug_frame ─► dwarf ─┐
//! pcsp of .gopclntab      ─► pcsp ──┼─► Layer ─► Rows ─► table (what the BPF program reads)
//! machine code ─► asm, go_asm, bare, kernel ─┘
//! ```

pub mod asm;
pub mod coverage;
pub mod danger;
pub mod dwarf;
pub mod ext;
pub mod go;
pub mod go_asm;
pub mod object;
pub mod pcsp;
pub mod rows;
pub mod table;

mod bare;
mod cfi;
mod eh_return;
mod kernel;
mod state;
#[cfg(test)]
mod testing;

pub use coverage::{Coverage, Unsupported};
pub use ext::ExtTable;
pub use object::ObjectRows;
pub use rows::{Layer, Row, Rows};
