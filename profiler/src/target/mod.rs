//! Looking at a process and at the objects in it. Nothing here stops or changes it.

pub mod calls;
pub mod cgroup;
pub mod command;
pub mod files;
pub mod go;
pub mod maps;
pub mod preflight;
pub mod process;
pub mod status;
mod sys;

pub(crate) use sys::{Mapped, map_file};
pub mod waiting;
