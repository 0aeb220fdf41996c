//! Findings for people and for programs.

use super::{Check, State, can_record};
use crate::format::{escape, pretty_json};
use serde::Serialize;
use std::fmt::Write;

/// One line for each check, one more for each remedy, and the verdict. What comes from the host is escaped.
pub fn text(checks: &[Check]) -> String {
    let names = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    // Writing to a String cannot fail.
    for check in checks {
        let _ = writeln!(
            out,
            "{:<5}  {:<names$}  {}",
            check.state.label(),
            check.name,
            escape(&check.found)
        );
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(out, "{:<5}  {:<names$}  → {remedy}", "", "");
        }
    }
    let of = |state| checks.iter().filter(|check| check.state == state).count();
    let verdict = match (can_record(checks), of(State::Lacks)) {
        (false, _) => "recordings do not work: see FAILS above".to_owned(),
        (true, 0) => "recordings work".to_owned(),
        (true, n) => format!("recordings work; {n} of the above could be better (lacks)"),
    };
    let _ = writeln!(out, "\n{verdict}");
    out
}

/// The findings as one JSON object, ended by a newline.
///
/// The names of its fields and checks are stable. Fields and checks may be added; when one is renamed, removed or changes
/// its meaning, `schema` becomes 2.
///
/// | field | what |
/// |---|---|
/// | `schema` | 1 |
/// | `can_record` | no check fails |
/// | `checks` | a list of `name`, `state`, `found`, and `remedy` if there is one |
///
/// `state` is `ok`, `fails` (recordings need it), `lacks` (they are better with it), `open` (not to be seen from
/// here) or `note`.
pub fn json(checks: &[Check]) -> String {
    let document = Document {
        schema: 1,
        can_record: can_record(checks),
        checks: checks
            .iter()
            .map(|check| Row {
                name: check.name,
                state: check.state.label().to_ascii_lowercase(),
                found: &check.found,
                remedy: check.remedy.as_deref(),
            })
            .collect(),
    };
    pretty_json(&document)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    can_record: bool,
    checks: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'static str,
    state: String,
    found: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
}
