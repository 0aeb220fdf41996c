//! Looking at a process. Nothing here stops or changes it.

pub mod command;
pub mod files;
pub mod maps;
pub mod process;
mod sys;
