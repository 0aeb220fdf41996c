//! What is done with bytes.

pub mod hooks;
pub mod object;
pub mod profile;
pub mod text;
pub mod walk;
