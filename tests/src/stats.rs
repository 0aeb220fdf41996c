//! Tells disagreement of two profiles from chance.

use std::collections::{BTreeMap, BTreeSet};

/// Pairs of profiles that are drawn to learn what chance does.
const DRAWS: usize = 400;

/// Samples of each function.
pub type Counts = BTreeMap<String, u64>;

/// How far apart two profiles of the same program are by chance alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chance {
    /// Mean of the total variation distance.
    pub mean: f64,
    /// What 99 of 100 pairs stay below.
    pub p99: f64,
}

/// The total variation distance of two profiles: the share of samples that would have to change their function
/// to make them equal. 0 to 1; 1 if either is empty.
pub fn total_variation(a: &Counts, b: &Counts) -> f64 {
    let (total_a, total_b) = (total(a), total(b));
    if total_a == 0 || total_b == 0 {
        return 1.0;
    }
    let functions: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let share = |counts: &Counts, function: &String, all: u64| {
        counts.get(function).copied().unwrap_or(0) as f64 / all as f64
    };
    let apart: f64 = functions
        .into_iter()
        .map(|f| (share(a, f, total_a) - share(b, f, total_b)).abs())
        .sum();
    apart / 2.0
}

/// The distance to expect of two profiles with as many samples as `a` and `b`, if both are drawn from the same
/// distribution: that of the samples of both, dealt out anew. Dealt, and not drawn with replacement, so that functions with
/// a single sample are in one of the two always, as they are in fact. The same counts always give the same answer.
pub fn chance(a: &Counts, b: &Counts) -> Chance {
    let mut pooled = a.clone();
    for (function, n) in b {
        *pooled.entry(function.clone()).or_default() += n;
    }
    let (total_a, total_b) = (total(a), total(b));
    if total_a == 0 || total_b == 0 {
        return Chance { mean: 1.0, p99: 1.0 };
    }
    let mut samples: Vec<usize> = pooled
        .values()
        .enumerate()
        .flat_map(|(function, &n)| (0..n).map(move |_| function))
        .collect();
    let mut random = Random(0x5eed);
    let mut distances: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let mut dealt = vec![(0_u64, 0_u64); pooled.len()];
            for at in 0..samples.len() {
                let from = at + random.below((samples.len() - at) as u64) as usize;
                samples.swap(at, from);
                let (x, y) = &mut dealt[samples[at]];
                *(if (at as u64) < total_a { x } else { y }) += 1;
            }
            let apart = |&(x, y): &(u64, u64)| (x as f64 / total_a as f64 - y as f64 / total_b as f64).abs();
            dealt.iter().map(apart).sum::<f64>() / 2.0
        })
        .collect();
    distances.sort_by(f64::total_cmp);
    Chance {
        mean: distances.iter().sum::<f64>() / DRAWS as f64,
        p99: distances[DRAWS * 99 / 100],
    }
}

fn total(counts: &Counts) -> u64 {
    counts.values().sum()
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`. The bias of the multiplication is below n / 2^64.
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, chance, total_variation};

    fn counts(of: &[(&str, u64)]) -> Counts {
        of.iter().map(|&(name, n)| (name.to_owned(), n)).collect()
    }

    #[test]
    fn distance_is_the_share_that_would_have_to_move() {
        let a = counts(&[("f", 50), ("g", 50)]);
        assert_eq!(total_variation(&a, &a), 0.0);
        assert_eq!(total_variation(&a, &counts(&[("f", 500), ("g", 500)])), 0.0);
        assert!((total_variation(&a, &counts(&[("f", 60), ("g", 40)])) - 0.1).abs() < 1e-12);
        assert_eq!(total_variation(&a, &counts(&[("h", 10)])), 1.0);
        assert_eq!(total_variation(&a, &Counts::new()), 1.0);
    }

    #[test]
    fn chance_is_that_of_two_profiles_of_one_distribution() {
        // Two functions with p = 1/2: the distance is |x − y| of two binomial shares, whose difference is nearly
        // normal with variance 1/(4 n) + 1/(4 m); the mean of its absolute value is sqrt(2/π) of its deviation.
        let a = counts(&[("f", 5000), ("g", 5000)]);
        let b = counts(&[("f", 2500), ("g", 2500)]);
        let deviation = (1.0 / (4.0 * 10_000.0) + 1.0 / (4.0 * 5_000.0_f64)).sqrt();
        let found = chance(&a, &b);
        assert!((found.mean / (deviation * 0.798) - 1.0).abs() < 0.1, "{found:?}");
        assert!((found.p99 / (deviation * 2.576) - 1.0).abs() < 0.2, "{found:?}");
        assert_eq!(found, chance(&a, &b));
    }

    #[test]
    fn functions_with_one_sample_are_in_one_of_the_two() {
        let once = |prefix: &str, n: u64| (0..n).map(|i| (format!("{prefix}{i}"), 1)).collect::<Counts>();
        let found = chance(&once("f", 50), &once("g", 50));
        assert!(
            (found.mean - 1.0).abs() < 1e-9 && (found.p99 - 1.0).abs() < 1e-9,
            "{found:?}"
        );
    }

    #[test]
    fn a_real_difference_is_far_outside_of_chance() {
        let a = counts(&[("f", 5000), ("g", 5000)]);
        let b = counts(&[("f", 5500), ("g", 4500)]);
        assert!(total_variation(&a, &b) > chance(&a, &b).p99);
    }
}
