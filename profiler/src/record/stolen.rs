//! Time that a hypervisor took away from our CPUs.

use std::time::Duration;

/// What `/proc/stat` counts in (`USER_HZ`, which is 100 for every program on x86-64).
const UNIT: Duration = Duration::from_millis(10);

/// The column of a CPU's line, after its name (proc_stat(5)).
const STEAL: usize = 7;

/// The time stolen from each CPU since the system started, in units of [`UNIT`]; empty if it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stolen(Vec<u64>);

impl Stolen {
    /// Reads it.
    pub fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(stat: &str) -> Self {
        let cpus = stat.lines().filter(|line| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        });
        Self(
            cpus.map(|line| {
                line.split_ascii_whitespace()
                    .nth(1 + STEAL)
                    .and_then(|field| field.parse().ok())
                    .unwrap_or(0)
            })
            .collect(),
        )
    }

    /// The most that can have been stolen from all CPUs together since `before`. The kernel shows whole units only,
    /// so there can be one more on each CPU; not on one from which nothing was stolen ever.
    pub fn at_most_since(&self, before: &Self) -> Duration {
        let each = self.0.iter().zip(&before.0).map(|(&now, &before)| match now {
            0 => 0,
            now => now.saturating_sub(before).saturating_add(1),
        });
        UNIT.saturating_mul(u32::try_from(each.sum::<u64>()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::Stolen;
    use std::time::Duration;

    #[test]
    fn units_are_added_over_cpus() {
        let stat = |first, second| {
            let text = format!(
                "cpu  9 9 9 9 9 9 9 99 0 0\ncpu0 1 2 3 4 5 6 7 {first} 0 0\ncpu1 1 2 3 4 5 6 7 {second} 0 0\nintr 5\n"
            );
            Stolen::parse(&text)
        };
        let (before, now) = (stat(5, 0), stat(8, 0));
        assert_eq!(now.at_most_since(&before), Duration::from_millis(40));
        assert_eq!(stat(0, 0).at_most_since(&stat(0, 0)), Duration::ZERO);
    }

    #[test]
    fn this_machine_has_a_line_for_each_cpu() {
        assert!(!Stolen::read().0.is_empty());
    }

    #[test]
    fn nonsense_is_no_time() {
        let nothing = Stolen::parse("cpu0 1 2\ncpux\n");
        assert_eq!(nothing.at_most_since(&nothing), Duration::ZERO);
    }
}
