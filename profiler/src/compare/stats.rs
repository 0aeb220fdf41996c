//! The statistics: Welch's test, an exact permutation test, and Benjamini and Hochberg's correction.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Chance of finding a change of the size that is called the smallest detectable one.
const POWER: f64 = 0.8;

/// The most permutations that are tried: two sides of ten runs.
const MAX_PERMUTATIONS: u64 = 200_000;

/// A difference of two means, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    /// Second mean less first.
    pub(super) difference: f64,
    /// Standard error of that.
    pub(super) error: f64,
    /// Degrees of freedom; infinite if the error is known and not estimated.
    pub(super) freedom: f64,
}

impl Estimate {
    /// Welch's estimate. `floors` are variances of a single observation that are known to be there: by luck the
    /// observed ones can be smaller.
    ///
    /// `None` if a side has less than two observations.
    pub(super) fn welch(first: &[f64], second: &[f64], floors: [f64; 2]) -> Option<Self> {
        if first.len() < 2 || second.len() < 2 {
            return None;
        }
        let of_mean = |values: &[f64], floor: f64| variance(values).max(floor) / values.len() as f64;
        let (a, b) = (of_mean(first, floors[0]), of_mean(second, floors[1]));
        let per_freedom = a * a / (first.len() - 1) as f64 + b * b / (second.len() - 1) as f64;
        Some(Self {
            difference: mean(second) - mean(first),
            error: (a + b).sqrt().max(f64::MIN_POSITIVE),
            freedom: ((a + b) * (a + b) / per_freedom).max(1.0),
        })
    }

    /// An estimate whose error is known.
    pub(super) fn known(difference: f64, variance: f64) -> Self {
        Self {
            difference,
            error: variance.sqrt().max(f64::MIN_POSITIVE),
            freedom: f64::INFINITY,
        }
    }

    /// The same after `by` has been taken off.
    pub(super) fn less(self, by: f64) -> Self {
        Self {
            difference: self.difference - by,
            ..self
        }
    }

    /// Chance of a difference as large as this, or larger, if there is none.
    pub(super) fn p_rise(self) -> f64 {
        self.upper_tail(self.difference / self.error)
    }

    /// Chance of a difference as small as this, or smaller, if there is none.
    pub(super) fn p_fall(self) -> f64 {
        self.upper_tail(-self.difference / self.error)
    }

    /// The bounds that the true difference is above, and below, with this confidence each.
    pub(super) fn bounds(self, confidence: f64) -> (f64, f64) {
        let reach = self.quantile(confidence) * self.error;
        (self.difference - reach, self.difference + reach)
    }

    /// The smallest true difference that is found four times out of five, if what is found has to be improbable
    /// (`p`) and its lower bound above `least`.
    pub(super) fn detectable(self, p: f64, confidence: f64, least: f64) -> f64 {
        let significant = self.quantile(1.0 - p) * self.error;
        let large = least + self.quantile(confidence) * self.error;
        significant.max(large) + self.quantile(POWER) * self.error
    }

    fn upper_tail(self, t: f64) -> f64 {
        match StudentsT::new(0.0, 1.0, self.freedom) {
            Ok(distribution) if self.freedom.is_finite() => distribution.sf(t),
            _ => Normal::standard().sf(t),
        }
    }

    fn quantile(self, p: f64) -> f64 {
        match StudentsT::new(0.0, 1.0, self.freedom) {
            Ok(distribution) if self.freedom.is_finite() => distribution.inverse_cdf(p),
            _ => Normal::standard().inverse_cdf(p),
        }
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    squares / (values.len().max(2) - 1) as f64
}

/// Chance that a random division of all observations into sides of these sizes has a difference of means as large as
/// that seen, or larger: exact, by trying all of them. `None` if they are too many.
pub(super) fn permutation(first: &[f64], second: &[f64]) -> Option<f64> {
    let all: Vec<f64> = first.iter().chain(second).copied().collect();
    let total = choices(all.len(), second.len()).filter(|&total| total <= MAX_PERMUTATIONS)?;
    // With fixed sizes the difference of means grows with the sum of one side.
    let observed: f64 = second.iter().sum();
    // Sums of the same numbers in another order differ by rounding.
    let observed = observed - 1e-12 * all.iter().map(|value| value.abs()).sum::<f64>();
    let mut as_large = 0_u64;
    let mut chosen = (1_u64 << second.len()) - 1;
    for _ in 0..total {
        let mut rest = chosen;
        let mut sum = 0.0;
        while rest != 0 {
            sum += all[rest.trailing_zeros() as usize];
            rest &= rest - 1;
        }
        as_large += u64::from(sum >= observed);
        chosen = next_choice(chosen);
    }
    Some(as_large as f64 / total as f64)
}

/// The next larger number with as many bits set (Gosper's hack).
fn next_choice(bits: u64) -> u64 {
    let lowest = bits & bits.wrapping_neg();
    let ripple = bits.wrapping_add(lowest);
    ripple | (((bits ^ ripple) / lowest.max(1)) >> 2)
}

/// Ways to choose `k` of `n`; `None` if there are more than 64 bits of anything.
pub(super) fn choices(n: usize, k: usize) -> Option<u64> {
    if n >= 64 || k == 0 || k > n {
        return None;
    }
    (1..=k as u64).try_fold(1_u64, |ways, at| {
        ways.checked_mul(n as u64 - k as u64 + at).map(|ways| ways / at)
    })
}

/// The p-values after Benjamini and Hochberg: those at most α are false discoveries in a share of at most α.
pub(super) fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let n = p_values.len() as f64;
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut least = 1.0_f64;
    for (rank, &at) in order.iter().enumerate().rev() {
        least = least.min(p_values[at] * n / (rank + 1) as f64);
        adjusted[at] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::{Estimate, benjamini_hochberg, choices, permutation};

    fn near(found: f64, expected: f64, within: f64) {
        assert!((found - expected).abs() < within, "{found} is not {expected}");
    }

    #[test]
    fn welch_agrees_with_published_figures() {
        // scipy.stats.ttest_ind(b, a, equal_var=False, alternative="greater").
        let a = [
            27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4,
        ];
        let b = [
            27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4,
        ];
        let estimate = Estimate::welch(&a, &b, [0.0; 2]).unwrap();
        near(estimate.difference / estimate.error, 2.4554, 1e-3);
        near(estimate.freedom, 24.988, 1e-2);
        near(estimate.p_rise(), 0.01069, 1e-4);
        near(estimate.p_rise() + estimate.p_fall(), 1.0, 1e-9);
    }

    #[test]
    fn bounds_hold_what_they_say() {
        let estimate = Estimate::known(1.0, 4.0);
        let (low, high) = estimate.bounds(0.95);
        near(low, 1.0 - 2.0 * 1.644_853_6, 1e-5);
        near(high, 1.0 + 2.0 * 1.644_853_6, 1e-5);
        // 1.6449 + 0.8416 standard errors above what has to be shown.
        near(estimate.detectable(0.05, 0.95, 0.5), 0.5 + 2.0 * 2.486_475, 1e-4);
    }

    #[test]
    fn a_known_variance_is_not_undercut_by_luck() {
        let same = [1.0, 1.0, 1.0];
        let estimate = Estimate::welch(&same, &[2.0, 2.0, 2.0], [0.3, 0.3]).unwrap();
        near(estimate.error, (0.2_f64).sqrt(), 1e-12);
        assert!(Estimate::welch(&same, &[2.0], [0.3, 0.3]).is_none());
    }

    #[test]
    fn all_divisions_are_tried() {
        assert_eq!(choices(16, 8), Some(12_870));
        assert_eq!(choices(64, 2), None);
        // Of the 20 divisions of six values, only one has the three largest on one side.
        near(
            permutation(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]).unwrap(),
            0.05,
            1e-12,
        );
        near(
            permutation(&[4.0, 5.0, 6.0], &[1.0, 2.0, 3.0]).unwrap(),
            1.0,
            1e-12,
        );
        assert_eq!(permutation(&[0.0; 20], &[1.0; 20]), None);
    }

    #[test]
    fn the_correction_keeps_the_order() {
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "BH")
        let adjusted = benjamini_hochberg(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in adjusted.iter().zip([0.02, 0.04, 0.04, 0.02]) {
            near(*found, expected, 1e-12);
        }
        assert!(benjamini_hochberg(&[]).is_empty());
    }
}
