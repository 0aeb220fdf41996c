//! What counts as a regression: thresholds, and rules for single functions, as a file under version control.

use super::Fact;
use serde::Deserialize;
use std::collections::BTreeSet;

/// Thresholds and rules. Changes and shares are fractions: 0.05 is 5 %.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The smallest rise that is a regression.
    pub min_change: f64,
    /// Functions with a smaller share of the samples, on both sides, are not tested.
    pub min_share: f64,
    /// How often a check of unchanged code may fail.
    pub alpha: f64,
    /// What makes the check fail.
    pub fail_on: BTreeSet<FailOn>,
    /// What the cost of the whole program is.
    pub program: ProgramCost,
    /// Names of functions that are not tested; `*` stands for any text.
    pub ignore: Vec<String>,
    /// Functions with a threshold of their own; the first that fits is used.
    pub functions: Vec<FunctionRule>,
    /// Differences between the sides that do not prevent a pass.
    pub allow_differences: BTreeSet<Fact>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min_change: 0.05,
            min_share: 0.01,
            alpha: 0.05,
            fail_on: BTreeSet::from([FailOn::Regression]),
            program: ProgramCost::PerRun,
            ignore: Vec::new(),
            functions: Vec::new(),
            allow_differences: BTreeSet::new(),
        }
    }
}

/// A threshold for functions of these names.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionRule {
    /// Name; `*` stands for any text.
    pub name: String,
    /// The smallest rise that is a regression, as a fraction.
    pub min_change: f64,
}

/// What makes a check fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailOn {
    /// Code got slower.
    Regression,
    /// Something rose, but not surely by the smallest change that matters, or it was seen in too few runs.
    Suspect,
    /// The data cannot show what was asked for.
    Inconclusive,
    /// Nothing: the verdict is only reported.
    Never,
}

/// What the cost of the whole program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgramCost {
    /// CPU time of a run: each run does the same work.
    PerRun,
    /// CPU time per second: a service under the same load, recorded for any time.
    PerSecond,
    /// It is not compared: the load differs.
    Ignore,
}

/// Why a policy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The text is not TOML, or has keys that mean nothing.
    #[error("{0}")]
    Toml(String),
    /// A number is out of range.
    #[error("{key} has to be between {least} and {most}")]
    Range {
        /// Which.
        key: &'static str,
        /// The least it can be.
        least: &'static str,
        /// The most it can be.
        most: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    check: Section,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Section {
    min_change: Option<f64>,
    min_share: Option<f64>,
    alpha: Option<f64>,
    fail_on: Option<BTreeSet<FailOn>>,
    program_cost: Option<ProgramCost>,
    #[serde(default)]
    ignore: Vec<String>,
    #[serde(default)]
    function: Vec<Rule>,
    #[serde(default)]
    allow_differences: BTreeSet<Fact>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Rule {
    name: String,
    min_change: f64,
}

impl Policy {
    /// Reads the section `[check]` of a TOML document. Changes and shares in it are in percent.
    ///
    /// # Errors
    /// [`PolicyError`], with the line where there is one.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        let File { check } = toml::from_str(text)
            .map_err(|error| PolicyError::Toml(error.to_string().trim_end().to_owned()))?;
        let default = Self::default();
        let fraction = |percent: Option<f64>, default| percent.map_or(default, |percent| percent / 100.0);
        let policy = Self {
            min_change: fraction(check.min_change, default.min_change),
            min_share: fraction(check.min_share, default.min_share),
            alpha: check.alpha.unwrap_or(default.alpha),
            fail_on: check.fail_on.unwrap_or(default.fail_on),
            program: check.program_cost.unwrap_or(default.program),
            ignore: check.ignore,
            functions: check
                .function
                .into_iter()
                .map(|rule| FunctionRule {
                    name: rule.name,
                    min_change: rule.min_change / 100.0,
                })
                .collect(),
            allow_differences: check.allow_differences,
        };
        policy.check()?;
        Ok(policy)
    }

    /// Whether the numbers make sense.
    ///
    /// # Errors
    /// [`PolicyError::Range`].
    pub fn check(&self) -> Result<(), PolicyError> {
        let range = |key, least, most| PolicyError::Range { key, least, most };
        let is_change = |change: f64| (0.0..=10.0).contains(&change);
        if !is_change(self.min_change) || self.functions.iter().any(|rule| !is_change(rule.min_change)) {
            return Err(range("min-change", "0 %", "1000 %"));
        }
        if !(0.0001..=1.0).contains(&self.min_share) {
            return Err(range("min-share", "0.01 %", "100 %"));
        }
        if !(0.0001..=0.2).contains(&self.alpha) {
            return Err(range("alpha", "0.0001", "0.2"));
        }
        Ok(())
    }

    /// The smallest rise of this function that is a regression.
    pub(super) fn min_change_of(&self, name: &str) -> f64 {
        self.functions
            .iter()
            .find(|rule| fits(&rule.name, name))
            .map_or(self.min_change, |rule| rule.min_change)
    }

    pub(super) fn ignores(&self, name: &str) -> bool {
        self.ignore.iter().any(|pattern| fits(pattern, name))
    }

    /// How sure the bounds of a change are, each: less than a test is, since they do not guard against false alarms
    /// but against calling a small rise a large one.
    pub(super) fn confidence(&self) -> f64 {
        1.0 - 3.0 * self.alpha
    }
}

/// Whether `name` is `pattern`, in which `*` stands for any text, also none. A `*` in a name, as Go's receivers have, fits
/// itself.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::{FailOn, Policy, PolicyError, ProgramCost, fits};
    use crate::compare::Fact;
    use std::collections::BTreeSet;

    #[test]
    fn a_file_says_everything_in_percent() {
        let policy = Policy::from_toml(
            r#"
            [check]
            min-change = 10
            min-share = 0.5
            alpha = 0.01
            fail-on = ["regression", "inconclusive"]
            program-cost = "per-second"
            ignore = ["runtime.gc*"]
            allow-differences = ["kernel"]

            [[check.function]]
            name = "main.(*shop).bestMatch"
            min-change = 20
            "#,
        )
        .unwrap();
        assert!((policy.min_change - 0.1).abs() < 1e-12 && (policy.min_share - 0.005).abs() < 1e-12);
        assert_eq!(
            policy.fail_on,
            BTreeSet::from([FailOn::Regression, FailOn::Inconclusive])
        );
        assert_eq!(policy.program, ProgramCost::PerSecond);
        assert_eq!(policy.allow_differences, BTreeSet::from([Fact::Kernel]));
        assert!(policy.ignores("runtime.gcBgMarkWorker") && !policy.ignores("main.gc"));
        assert!((policy.min_change_of("main.(*shop).bestMatch") - 0.2).abs() < 1e-12);
        assert!((policy.min_change_of("main.other") - 0.1).abs() < 1e-12);
        assert_eq!(Policy::from_toml("").unwrap(), Policy::default());
    }

    #[test]
    fn a_mistake_is_named() {
        for (text, word) in [
            ("[check]\nmin-chnage = 5", "min-chnage"),
            ("[check]\nfail-on = [\"maybe\"]", "maybe"),
            ("[check\n", "expected"),
            ("[check]\nalpha = 0.5", "alpha"),
            ("[check]\nmin-share = 0", "min-share"),
            ("[check]\nmin-change = -1", "min-change"),
            ("[check]\nmin-change = nan", "min-change"),
        ] {
            let error = Policy::from_toml(text).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(matches!(
            Policy::from_toml("[check]\nalpha = 1"),
            Err(PolicyError::Range { key: "alpha", .. })
        ));
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("main.f", "main.f", true),
            ("main.f", "main.ff", false),
            ("main.*", "main.f", true),
            ("*gc*", "runtime.gcStart", true),
            ("*gc*", "runtime.main", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
            ("main.(*T).f", "main.(*T).f", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
