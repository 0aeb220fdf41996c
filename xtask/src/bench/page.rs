//! The page that keeps the figures, with what they depend on.

use super::Figure;
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;

/// The page, in the root of the repository.
pub(super) const NAME: &str = "BENCH.md";

/// Writes the page anew.
pub(super) fn write(parts: &[String], figures: &[Figure]) -> Result<()> {
    let path = workspace::root().join(NAME);
    fs::write(&path, text(parts, figures, &machine()?)).with_context(|| format!("cannot write {NAME}"))?;
    println!("Kept in {NAME}");
    Ok(())
}

fn text(parts: &[String], figures: &[Figure], machine: &str) -> String {
    let command = [&["cargo xtask bench --keep".to_owned()], parts]
        .concat()
        .join(" ");
    let row = |figure: &Figure| {
        format!(
            "| {} | {} | {} | {} |\n",
            figure.what.replace('|', "\\|"),
            figure.found,
            figure.promised,
            figure.ratio
        )
    };
    let rows: String = figures.iter().map(row).collect();
    format!(
        "# Figures\n\nMeasured by `{command}` on {machine}. Values are medians, those in brackets the least and the most. \
         The last column is for other recorders: it has the profiler's figure divided by theirs.\n\n\
         | what | found | promised at most | ours ÷ this |\n|---|---:|---:|---:|\n{rows}"
    )
}

/// What the figures depend on: processors and kernel.
fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("an unknown processor", |(_, model)| model.trim());
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let is_virtual = cpus
        .lines()
        .any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{}{count} CPUs of {model}, Linux {}",
        if is_virtual { "a virtual machine with " } else { "" },
        kernel.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::{Figure, text};

    #[test]
    fn the_page_has_the_command_the_machine_and_the_figures() {
        let page = text(
            &["walk".to_owned()],
            &[
                Figure::new("a | b", "1 ns", "2 ns"),
                Figure::new("perf", "4 ns", "").beside(1.0, 4.0),
            ],
            "a machine",
        );
        assert_eq!(
            page,
            "# Figures\n\nMeasured by `cargo xtask bench --keep walk` on a machine. Values are medians, those in brackets the \
             least and the most. The last column is for other recorders: it has the profiler's figure divided by theirs.\n\n\
             | what | found | promised at most | ours ÷ this |\n|---|---:|---:|---:|\n\
             | a \\| b | 1 ns | 2 ns |  |\n| perf | 4 ns |  | 0.25 |\n"
        );
    }
}
