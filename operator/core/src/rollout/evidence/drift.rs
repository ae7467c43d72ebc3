//! Drift of the classes: whether the candidate names some classes more often, and others less often, than the stable
//! revision does in its answers to the same requests.
//!
//! Input: by the class, in how many pairs of answers the user's has it and in how many the candidate's; and how often the
//! stable revision differed from itself. Output: the total variation distance of both histograms,
//! TV = ½ Σₖ |cₖ − sₖ| / n (Levin, Peres, Wilmer: Markov Chains and Mixing Times, 4.1), and whether it is worth telling.
//!
//! It is told and does not vote. TV is at most the share of pairs that differ (the coupling inequality, 4.2 there), and that
//! share votes already, against what `maxDisagreement` tolerates: a vote on TV would be the same pairs counted twice, or
//! would take back what the user said to tolerate. What TV adds is whether the differences all go one way.
//!
//! Invariants: pure; equal models are not told of. Differences that cancel (as many from cat to dog as from dog to cat) are
//! no drift. [`LEAST_MOVED`] is four bursts of sixteen with one cause each, [`LEAST_PAIRS`] are so many that the share in which
//! the stable revision differs from itself, which is taken off, is known well enough. Simulated below.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{count::Count, frozen};

/// So many pairs have to have moved from some classes to others, after those that moved back are taken off.
pub const LEAST_MOVED: u64 = 64;
/// Of fewer pairs nothing is told.
pub const LEAST_PAIRS: u64 = 1000;
/// And this share of all pairs, beyond the share in which the stable revision differs from itself.
pub const LEAST_SHARE: f64 = 0.02;
/// Classes that are named.
pub const NAMED: usize = 5;

/// By the class: pairs in which the user's answer has it, and pairs in which the candidate's does.
pub type Histogram = BTreeMap<String, [u64; 2]>;

/// How far the histograms are apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Pairs of answers.
    pub pairs: u64,
    /// The total variation distance, 0 (the same) to 1 (no class in common), to four digits.
    pub distance: f64,
    /// Whether it is worth telling.
    pub notable: bool,
    /// The classes whose counts differ most, those first; none where all are the same.
    pub classes: Vec<Moved>,
}

/// One class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Its name; empty for all that are not counted by name.
    pub class: String,
    /// Answers of the stable revision with it.
    pub stable: u64,
    /// Answers of the candidate with it.
    pub candidate: u64,
}

/// How far the candidate's classes are from the stable revision's; `None` without pairs. `own`: pairs of the stable
/// revision with itself.
#[must_use]
pub fn drift(histogram: &Histogram, own: Count) -> Option<Drift> {
    let pairs: u64 = histogram.values().map(|[stable, _]| *stable).sum();
    if pairs == 0 {
        return None;
    }
    let apart = |[stable, candidate]: [u64; 2]| stable.abs_diff(candidate);
    let sum: u64 = histogram.values().map(|both| apart(*both)).sum();
    let distance = sum as f64 / 2.0 / pairs as f64;
    let usual = match own.bad {
        0 => 0.0,
        _ => frozen::upper_wilson(own).unwrap_or(1.0),
    };
    let mut classes: Vec<(&String, [u64; 2])> = histogram
        .iter()
        .map(|(class, both)| (class, *both))
        .filter(|(_, both)| apart(*both) > 0)
        .collect();
    // Of equals the first by name: the same counts give the same list.
    classes.sort_by_key(|(_, both)| std::cmp::Reverse(apart(*both)));
    let named = classes.into_iter().take(NAMED);
    Some(Drift {
        pairs,
        distance: (distance * 1e4).round() / 1e4,
        notable: pairs >= LEAST_PAIRS && sum >= 2 * LEAST_MOVED && distance >= LEAST_SHARE + usual,
        classes: named
            .map(|(class, [stable, candidate])| Moved {
                class: class.clone(),
                stable,
                candidate,
            })
            .collect(),
    })
}

impl Drift {
    /// In a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let of = |moved: &Moved| {
            let Moved {
                class,
                stable,
                candidate,
            } = moved;
            let name = if class.is_empty() { "the rest" } else { class };
            format!("{name} {stable} → {candidate}")
        };
        let named: Vec<String> = self.classes.iter().map(of).collect();
        format!(
            "{:.1} % of {} answers moved from some classes to others, from the stable revision to the candidate: {}",
            100.0 * self.distance,
            self.pairs,
            named.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram(classes: &[(&str, [u64; 2])]) -> Histogram {
        let named = classes.iter();
        named
            .map(|(name, both)| ((*name).to_owned(), *both))
            .collect()
    }

    fn of(classes: &[(&str, [u64; 2])], own: [u64; 2]) -> Drift {
        drift(&histogram(classes), own.into()).expect("there are pairs")
    }

    #[test]
    fn the_distance_is_half_of_what_differs_and_names_what_differs_most() {
        let some = of(
            &[
                ("cat", [6000, 5600]),
                ("dog", [3000, 3450]),
                ("", [1000, 950]),
            ],
            [1000, 0],
        );
        assert_eq!(
            (some.pairs, some.distance, some.notable),
            (10_000, 0.045, true)
        );
        assert_eq!(
            some.sentence(),
            "4.5 % of 10000 answers moved from some classes to others, from the stable revision to the candidate: dog 3000 → 3450, cat 6000 → 5600, the rest 1000 → 950"
        );
        assert_eq!(drift(&Histogram::new(), Count::default()), None);
    }

    #[test]
    fn it_is_told_from_a_number_of_pairs_and_a_share_on_beyond_what_the_stable_revision_does_itself()
     {
        for (classes, own, told) in [
            ([("a", [1000, 1000]), ("b", [1000, 1000])], [2000, 0], false),
            ([("a", [1000, 937]), ("b", [1000, 1063])], [2000, 0], false),
            ([("a", [1000, 936]), ("b", [1000, 1064])], [2000, 0], true),
            ([("a", [490, 390]), ("b", [509, 609])], [999, 0], false),
            ([("a", [490, 390]), ("b", [510, 610])], [1000, 0], true),
            (
                [("a", [5000, 4801]), ("b", [5000, 5199])],
                [10_000, 0],
                false,
            ),
            (
                [("a", [5000, 4800]), ("b", [5000, 5200])],
                [10_000, 0],
                true,
            ),
            (
                [("a", [5000, 4600]), ("b", [5000, 5400])],
                [10_000, 300],
                false,
            ),
        ] {
            assert_eq!(of(&classes, own).notable, told, "{classes:?} {own:?}");
        }
    }

    /// Numbers that are random enough: SplitMix64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, share: f64) -> bool {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64) < share
        }
    }

    /// A model that says another class for so many requests in a row, in this share of all.
    struct Wavering {
        share: f64,
        burst: u32,
        left: u32,
    }

    impl Wavering {
        fn differs(&mut self, random: &mut Random) -> bool {
            if self.left == 0 && random.below(self.share / f64::from(self.burst)) {
                self.left = self.burst;
            }
            let differs = self.left > 0;
            self.left = self.left.saturating_sub(1);
            differs
        }
    }

    /// Whether drift is told of in a rollout of so many pairs, looked at after every hundred.
    fn told(share: f64, burst: u32, shift: f64, pairs: u32, random: &mut Random) -> bool {
        let model = || Wavering {
            share,
            burst,
            left: 0,
        };
        let (mut stable, mut again, mut candidate) = (model(), model(), model());
        // Two classes, one of them rare: every difference moves between the same two.
        let mut counts = [[0_u64; 2]; 2];
        let mut own = Count::default();
        for pair in 1..=pairs {
            let class = usize::from(random.below(0.2));
            let said = |differs: bool| if differs { 1 - class } else { class };
            let users = said(stable.differs(random));
            own.requests += 1;
            own.bad += u64::from(said(again.differs(random)) != users);
            let moves = class == 0 && random.below(shift);
            let other = if moves {
                1
            } else {
                said(candidate.differs(random))
            };
            counts[users][0] += 1;
            counts[other][1] += 1;
            let seen = [("a", counts[0]), ("b", counts[1])];
            if pair % 100 == 0 && drift(&histogram(&seen), own).expect("pairs").notable {
                return true;
            }
        }
        false
    }

    /// How many of a thousand. `ORTOLAN_DRIFT_RUNS`: runs of each cell.
    fn per_mille(share: f64, burst: u32, shift: f64, pairs: u32) -> f64 {
        let runs = std::env::var("ORTOLAN_DRIFT_RUNS");
        let runs: u32 = runs.ok().and_then(|n| n.parse().ok()).unwrap_or(40);
        let mut random = Random(u64::from(burst) << 32 | (1e6 * share) as u64);
        let told = (0..runs).filter(|_| told(share, burst, shift, pairs, &mut random));
        let rate = 1000.0 * told.count() as f64 / f64::from(runs);
        println!("{share} in rows of {burst}, {shift} moved, {pairs} pairs: {rate} of 1000");
        rate
    }

    #[test]
    fn equal_models_are_never_told_of_and_one_that_moves_a_twentieth_always() {
        for share in [0.0, 0.001, 0.01, 0.05] {
            for burst in [1, 4, 8, 16] {
                let rate = per_mille(share, burst, 0.0, 3_000);
                assert!(rate <= 5.0, "{share} in rows of {burst}: {rate} of 1000");
            }
        }
        assert!(per_mille(0.001, 1, 0.05, 3_000) >= 990.0);
    }

    proptest! {
        #[test]
        fn the_distance_is_at_most_the_share_of_pairs_that_differ(pairs in prop::collection::vec((0_u8..5, 0_u8..5), 1..200)) {
            let mut counts = Histogram::new();
            for (users, other) in &pairs {
                counts.entry(users.to_string()).or_default()[0] += 1;
                counts.entry(other.to_string()).or_default()[1] += 1;
            }
            let differ = pairs.iter().filter(|(a, b)| a != b).count();
            let drift = drift(&counts, Count::default()).expect("pairs");
            prop_assert!(drift.distance <= differ as f64 / pairs.len() as f64 + 1e-4);
            prop_assert!((0.0..=1.0).contains(&drift.distance));
        }
    }
}
