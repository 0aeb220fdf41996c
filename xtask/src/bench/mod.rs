//! `cargo xtask bench`: figures that depend on the machine, and so are no tests. Each part stands for a promise of the
//! README; the table has what was promised beside what was found.

mod check;
mod check_aa;
mod cost;
mod foreign;
mod hooks;
mod page;
mod paired;
mod start;
mod walk;

use anyhow::{Result, bail};

/// Something that is measured.
struct Part {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<Vec<Figure>>,
}

const PARTS: &[Part] = &[
    Part {
        name: "walk",
        about: "what the BPF program takes for a sample and for a frame (needs root)",
        run: walk::run,
    },
    Part {
        name: "cost",
        about: "what a recording costs its target and the machine, beside other recorders that are installed (needs root; four minutes for each recorder)",
        run: cost::run,
    },
    Part {
        name: "start",
        about: "how long a recording takes to begin and to end (needs root)",
        run: start::run,
    },
    Part {
        name: "check",
        about: "time and memory of `profiler check` and `profiler diff` on large profiles",
        run: check::run,
    },
    Part {
        name: "check-aa",
        about: "how often `profiler check` fails unchanged code (needs root; ten minutes)",
        run: check_aa::run,
    },
    Part {
        name: "hooks",
        about: "what honouring traceback hooks costs a program (needs root; eight minutes)",
        run: hooks::run,
    },
];

/// One line of the table.
struct Figure {
    what: String,
    found: String,
    /// What was promised; empty if nothing was.
    promised: String,
    /// For a figure of another recorder: how many times as much that of the profiler is. Empty if there is none.
    ratio: String,
}

impl Figure {
    fn new(what: impl Into<String>, found: impl Into<String>, promised: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            found: found.into(),
            promised: promised.into(),
            ratio: String::new(),
        }
    }

    /// This figure, of another recorder, beside that of the profiler.
    fn beside(mut self, ours: f64, theirs: f64) -> Self {
        // Where one of them is lost in the noise, so is what the ratio would say.
        if ours > 0.0 && theirs > 0.0 {
            self.ratio = format!("{:.2}", ours / theirs);
        }
        self
    }
}

/// Measures the parts of these names, or all of them, one after the other. `keep`: and puts the table into [`page::NAME`].
pub fn run(names: &[String], keep: bool) -> Result<()> {
    for name in names {
        if !PARTS.iter().any(|part| part.name == name) {
            bail!("there is no part \"{name}\"; there are:\n{}", list());
        }
    }
    let mut figures = Vec::new();
    for part in PARTS {
        if names.is_empty() || names.iter().any(|name| name == part.name) {
            println!("==> {}: {}", part.name, part.about);
            let found = (part.run)()?;
            println!("{}", table(&found));
            figures.extend(found);
        }
    }
    if keep {
        page::write(names, &figures)?;
    }
    Ok(())
}

/// The parts, one line each, for people.
fn list() -> String {
    let lines: Vec<String> = PARTS
        .iter()
        .map(|part| format!("  {:<10} {}", part.name, part.about))
        .collect();
    lines.join("\n")
}

fn table(figures: &[Figure]) -> String {
    let row = |what: &str, found: &str, promised: &str, ratio: &str| {
        let row = format!("{what:<84} {found:>10} {promised:>10} {ratio:>11}");
        format!("{}\n", row.trim_end())
    };
    let rows = figures
        .iter()
        .map(|figure| row(&figure.what, &figure.found, &figure.promised, &figure.ratio));
    std::iter::once(row("", "found", "promised", "ours ÷ this"))
        .chain(rows)
        .collect()
}

/// Median and largest of some durations or sizes.
fn median_and_most<T: Ord + Copy>(values: &mut [T]) -> Option<(T, T)> {
    values.sort_unstable();
    Some((*values.get(values.len() / 2)?, *values.last()?))
}

#[cfg(test)]
mod tests {
    use super::{Figure, PARTS, median_and_most, run, table};
    use std::collections::BTreeSet;

    #[test]
    fn parts_have_names_of_their_own() {
        let names: BTreeSet<_> = PARTS.iter().map(|part| part.name).collect();
        assert_eq!(names.len(), PARTS.len());
    }

    #[test]
    fn an_unknown_part_is_answered_with_the_known_ones() {
        let error = run(&["speed".to_owned()], false).unwrap_err().to_string();
        assert!(
            error.contains("\"speed\"") && error.contains("check-aa"),
            "{error}"
        );
    }

    #[test]
    fn the_table_has_what_was_promised_beside_what_was_found() {
        let text = table(&[
            Figure::new("check", "1.5 s", "2 s"),
            Figure::new("perf", "4 s", "").beside(1.5, 4.0),
            Figure::new("noise", "-1 s", "").beside(1.5, -1.0),
        ]);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows,
            [
                vec!["found", "promised", "ours", "÷", "this"],
                vec!["check", "1.5", "s", "2", "s"],
                vec!["perf", "4", "s", "0.38"],
                vec!["noise", "-1", "s"],
            ]
        );
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median_and_most(&mut [5, 1, 3]), Some((3, 5)));
        assert_eq!(median_and_most::<u8>(&mut []), None);
    }
}
