//! What this host allows: what a recording needs, what makes it better, and the remedy for each lack. Looks only.

mod checks;
mod host;
mod text;

pub use checks::checks;
pub use host::{Host, Trial, hosts_pids, missing_capabilities};
pub use text::{json, text};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// Missing, and recordings need it.
    Fails,
    /// Missing; recordings work, but something is worse or not there.
    Lacks,
    /// Cannot be seen from here.
    Open,
    /// Neither good nor bad.
    Note,
}

impl State {
    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Fails => "FAILS",
            Self::Lacks => "lacks",
            Self::Open => "open",
            Self::Note => "note",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name; stable.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found. Not escaped.
    pub found: String,
    /// What to do about it, if something is missing.
    pub remedy: Option<String>,
}

/// Whether recordings work, as far as can be seen.
pub fn can_record(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.state != State::Fails)
}

#[cfg(test)]
mod tests;
