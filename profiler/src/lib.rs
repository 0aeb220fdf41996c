//! Watches running processes from outside and says what they really do, in call chains that are true also
//! where Go, C and other native code call each other.
//!
//! The library never prints and never exits: results are returned, everything else goes to an
//! [`observe::Observer`]. Modules stand in reading order; each may use those above it and those it names.

pub mod addr;
pub mod observe;

mod explain;
mod words;

pub mod target;

pub mod gopclntab;
pub mod unwind;

pub mod hooks;
pub mod merge;
pub mod profile;
pub mod symbolize;

pub mod debuginfo;

pub mod format;
pub mod inject;

pub mod compare;
pub mod report;
pub mod sampler;

pub mod record;

pub mod doctor;
pub mod inspect;
