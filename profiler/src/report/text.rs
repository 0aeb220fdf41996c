//! A report for a terminal. Names are escaped.

use super::{Order, ROOT, Report, Source, Subject};
use crate::format::{escape, percent, thousands};
use crate::profile::Measure;
use std::borrow::Cow;
use std::fmt::Write;

/// The table of functions: at most `limit`, without those whose total is a smaller share of all samples than
/// `min_share`.
pub fn functions(report: &Report, order: Order, limit: usize, min_share: f64) -> String {
    let mut out = head(report);
    let all = report.functions(order);
    let shown: Vec<_> = all
        .iter()
        .filter(|(_, weight)| is_shown(report, weight.total, min_share))
        .take(limit)
        .collect();
    let mut rows = vec![["self", "", "total", "", "kind", "object", "function"].map(Cow::from)];
    for (subject, weight) in &shown {
        let (kind, module) = match subject {
            Subject::Function { kind, module, .. } => (kind.label(), module.as_deref().unwrap_or_default()),
            Subject::Note(_) | Subject::Thread(_) => ("", ""),
        };
        rows.push([
            amount(report.measure(), weight.own).into(),
            percent(weight.own, report.samples).into(),
            amount(report.measure(), weight.total).into(),
            percent(weight.total, report.samples).into(),
            kind.into(),
            escape(module),
            escape(subject.name()),
        ]);
    }
    align(&mut out, &rows);
    more(&mut out, all.len() - shown.len(), "functions", min_share);
    out
}

/// The tree of calls, callers above callees and the largest first: at most `limit` lines, without branches whose total
/// is a smaller share of all samples than `min_share`. A line further in is one of several callees of the line that
/// the branch begins at; what stands straight below a line is its only one.
pub fn tree(report: &Report, limit: usize, min_share: f64) -> String {
    let mut out = head(report);
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:>8} {:>8}  function", "total", "self");
    let mut lines = 0;
    // Node, what stands before it, and what stands before the callees that follow straight below.
    let mut open = vec![(ROOT, String::new(), String::new())];
    while let Some((at, before, below)) = open.pop() {
        let node = &report.nodes[at as usize];
        if at != ROOT {
            if lines < limit {
                let _ = writeln!(
                    out,
                    "{:>8} {:>8}  {before}{}",
                    percent(node.weight.total, report.samples),
                    percent(node.weight.own, report.samples),
                    escape(report.subjects[node.subject as usize].name())
                );
            }
            lines += 1;
        }
        let mut callees = report.callees(at);
        callees.retain(|&callee| is_shown(report, report.nodes[callee as usize].weight.total, min_share));
        let branches = callees.len() > 1;
        for (place, callee) in callees.into_iter().rev().enumerate() {
            open.push(match (branches, place) {
                (false, _) => (callee, below.clone(), below.clone()),
                (true, 0) => (callee, format!("{below}└ "), format!("{below}  ")),
                (true, _) => (callee, format!("{below}├ "), format!("{below}│ ")),
            });
        }
    }
    more(&mut out, lines.saturating_sub(limit), "lines", min_share);
    out
}

fn is_shown(report: &Report, total: u64, min_share: f64) -> bool {
    total as f64 >= min_share * report.samples as f64
}

/// What the samples are of.
fn head(report: &Report) -> String {
    let mut out = String::new();
    for source in &report.sources {
        let _ = writeln!(out, "{}", described(source));
    }
    if report.select.thread.is_some() || report.select.focus.is_some() {
        let _ = write!(
            out,
            "{} of {} {} ({}):",
            amount(report.measure(), report.selected()),
            amount(report.measure(), report.samples),
            unit(report.measure()),
            percent(report.selected(), report.samples)
        );
        if let Some(part) = &report.select.thread {
            let _ = write!(out, " threads named \"{}\"", escape(part));
        }
        if let Some(part) = &report.select.focus {
            let _ = write!(out, " stacks with \"{}\"", escape(part));
        }
        let _ = writeln!(out, "; shares are of all {}", unit(report.measure()));
    }
    out.push('\n');
    out
}

fn described(source: &Source) -> String {
    let mut out = format!("{}: {}", escape(&source.label), escape(&source.program));
    if !source.duration.is_zero() {
        let _ = write!(out, ", {:.1} s", source.duration.as_secs_f64());
    }
    let (amount, unit) = (amount(source.measure, source.samples), unit(source.measure));
    let _ = write!(out, ", {amount} {unit}");
    if source.frequency_hz > 0 {
        let seconds = source.samples as f64 / source.frequency_hz as f64;
        let _ = write!(out, " at {} Hz ({seconds:.2} CPU s)", source.frequency_hz);
    }
    let _ = write!(out, ", {} complete", percent(source.complete, source.samples));
    out
}

/// Samples; or milliseconds, with microseconds as decimals, where a share of the shortest waits still shows.
fn amount(measure: Measure, n: u64) -> String {
    match measure {
        Measure::Cpu => thousands(n),
        Measure::OffCpu => format!("{}.{:03}", thousands(n / 1_000_000), n / 1000 % 1000),
    }
}

fn unit(measure: Measure) -> &'static str {
    match measure {
        Measure::Cpu => "samples",
        Measure::OffCpu => "ms off the CPU",
    }
}

/// Columns: numbers to the right, words to the left.
fn align(out: &mut String, rows: &[[Cow<'_, str>; 7]]) {
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    for [own, own_share, total, total_share, kind, module, name] in rows {
        let line = format!(
            "{own:>0$} {own_share:>1$}  {total:>2$} {total_share:>3$}  {kind:<4$}  {module:<5$}  {name}",
            widths[0], widths[1], widths[2], widths[3], widths[4], widths[5]
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

fn more(out: &mut String, n: usize, of: &str, min_share: f64) {
    if n > 0 {
        let _ = writeln!(
            out,
            "… and {n} more {of} (--limit, or below --min-share {}%)",
            min_share * 100.0
        );
    }
}
