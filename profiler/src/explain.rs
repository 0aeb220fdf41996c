//! Errors as text, where they become part of a report.

use std::error::Error;

/// An error with its cause.
pub(crate) fn explain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
