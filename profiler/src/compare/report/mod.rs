//! A judgement or a difference for people and for programs. All names are escaped.

pub mod difference;
mod github;
mod json;
mod junit;
mod markdown;
#[cfg(test)]
mod tests;
mod text;

use super::judge::signed;
use super::{Evidence, Finding, FunctionId, Judgement, Measure, Pair, Policy, Side, Status};

/// How a judgement is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// For a terminal.
    Text,
    /// For a pull request or a job's summary.
    Markdown,
    /// For programs; `profiler/schema/check.schema.json` in the repository describes it.
    Json,
    /// A test suite, one test case for each function, for the test reports of CI servers.
    Junit,
    /// Workflow commands of GitHub Actions: annotations at the lines of the code.
    Github,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::Text, Self::Markdown, Self::Json, Self::Junit, Self::Github];

    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "markdown",
            Self::Json => "json",
            Self::Junit => "junit",
            Self::Github => "github",
        }
    }
}

/// Everything that a report needs.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The profiles.
    pub pair: &'a Pair,
    /// What was asked for.
    pub policy: &'a Policy,
    /// What was found.
    pub judgement: &'a Judgement,
    /// Directory of the sources: paths in annotations are relative to it.
    pub root: &'a str,
}

impl Report<'_> {
    /// The whole report, ended by a newline.
    pub fn write(&self, format: Format) -> String {
        match format {
            Format::Text => text::write(self),
            Format::Markdown => markdown::write(self),
            Format::Json => json::write(self),
            Format::Junit => junit::write(self),
            Format::Github => github::write(self),
        }
    }

    fn name(&self, id: FunctionId) -> &str {
        &self.pair.function(id).name
    }

    /// The source file relative to the root, and the line.
    fn place(&self, id: FunctionId) -> Option<(String, u32)> {
        let function = self.pair.function(id);
        let file = function.file.as_deref()?;
        let relative = file
            .strip_prefix(self.root)
            .and_then(|rest| rest.strip_prefix('/'))
            .filter(|_| !self.root.is_empty());
        let file = crate::format::escape(relative.unwrap_or(file)).into_owned();
        Some((file, function.line.unwrap_or(1)))
    }

    /// Findings that people want to see.
    fn notable(&self) -> impl Iterator<Item = &Finding> {
        self.judgement
            .findings
            .iter()
            .filter(|finding| finding.evidence.status != Status::Unchanged)
    }

    /// What a status means here, as a sentence without a full stop.
    fn sentence(&self, finding: &Finding) -> String {
        let evidence = &finding.evidence;
        let names: Vec<&str> = finding.others.iter().map(|&id| self.name(id)).collect();
        let of = match finding.measure {
            Measure::Own => "self",
            Measure::Total => "total",
        };
        match evidence.status {
            Status::Regression => format!(
                "takes {} CPU time ({of}), at least {} with {:.0} % confidence; {} would have passed",
                signed(evidence.change),
                evidence.low.map_or_else(String::new, signed),
                100.0 * self.judgement.confidence,
                signed(evidence.min_change),
            ),
            Status::Suspect => format!("seems to take {} CPU time ({of})", signed(evidence.change)),
            Status::Moved => format!(
                "takes {} CPU time ({of}), moved here from {}",
                signed(evidence.change),
                names.join(", ")
            ),
            Status::Caller => format!(
                "takes {} CPU time ({of}) because of {}",
                signed(evidence.change),
                names.join(", ")
            ),
            Status::Improved => format!("takes {} CPU time ({of})", signed(evidence.change)),
            Status::Unchanged => format!("no change was found ({of})"),
        }
    }

    /// Which data, as a line.
    fn data(&self) -> String {
        let side = |side: Side| {
            let runs = self.pair.runs(side);
            let samples: u64 = runs.iter().map(|run| run.samples).sum();
            format!(
                "{} {} with {} samples",
                runs.len(),
                if runs.len() == 1 { "run" } else { "runs" },
                crate::format::thousands(samples)
            )
        };
        format!(
            "baseline {}, candidate {}",
            side(Side::Baseline),
            side(Side::Candidate)
        )
    }

    /// What these data could have shown, as a sentence without a full stop.
    fn power(&self) -> String {
        let judgement = self.judgement;
        let tested = judgement.findings.len();
        let least = |findings: &mut dyn Iterator<Item = f64>| findings.fold(f64::INFINITY, f64::min);
        let best = least(
            &mut judgement
                .findings
                .iter()
                .filter_map(|finding| finding.evidence.detectable),
        );
        let program = judgement
            .program
            .as_ref()
            .and_then(|program| program.evidence.detectable);
        let mut text = match program {
            Some(change) => format!(
                "smallest change that would have been noticed: {} of the whole program",
                signed(change)
            ),
            None => "smallest change that would have been noticed: unknown for the whole program".to_owned(),
        };
        if best.is_finite() {
            text.push_str(&format!(
                ", {} of the best known function; {} in functions with {:.0} % of the tested CPU time",
                signed(best),
                signed(judgement.useful),
                100.0 * judgement.coverage
            ));
        }
        text.push_str(&format!(" ({tested} tests of functions)"));
        text
    }
}

/// `+3.1 % … +9.0 %`.
fn interval(evidence: &Evidence) -> String {
    match (evidence.low, evidence.high) {
        (Some(low), Some(high)) => format!("{} … {}", signed(low), signed(high)),
        _ => "unknown".to_owned(),
    }
}

/// A share of the samples, for people.
fn share(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
