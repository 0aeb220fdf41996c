//! What a recording found: stacks with their weights, and the facts needed to judge them.
//!
//! Nothing here does I/O or reads a clock, and nothing here is a file format: those are in [`crate::format`].

mod build;
mod model;
mod summary;

pub use build::Builder;
pub use model::{
    Frame, FrameId, Kind, Labels, LabelsId, Measure, Meta, Module, ModuleId, Origin, Profile, Roots, Sample,
    StackId, Thread, ThreadId,
};
pub use summary::{DebugFile, HookAnswers, HookNames, Missing, OffCpu, Summary};
