//! Finds the separate files that have names for the code of an object, and gives them to [`crate::symbolize`], which
//! opens no file itself.
//!
//! ```text
//! roots       files as a process sees them, and as we do
//! find        debug files by build id and by link, supplementary files; and what was refused
//! symbols     an object with all of its files: what recordings and inspections ask for names
//! debuginfod  debug files from servers, if the user names any
//! cache       what was fetched before, by us or by others
//! ```
//!
//! The order, for an object that has no DWARF itself: by build id, then by `.gnu_debuglink` in the three customary places
//! (GDB's manual, "Separate Debug Files"), both as the process sees files. If that is in another mount namespace or has
//! another root directory, then by build id on the host: its names of files mean nothing here.
//!
//! A file that is found has to belong to the object, which `symbolize` checks; else it is refused, and that is noted.
//! Paths come from hostile files: they are resolved inside of a root directory, and only regular files are opened.

mod cache;
pub mod debuginfod;
mod find;
mod roots;
mod symbols;

#[cfg(test)]
mod tests;

pub use roots::{Places, Root};
pub use symbols::Symbols;
