//! The sequential test while both sides have traffic: does the candidate get more than its share of
//! the bad events?
//!
//! If both are equally good, the expected share of a block's bad events that falls on the candidate
//! is the share of its requests, however the events depend on each other inside the block. A block is
//! one vote, however many events it has: a bet on each of six ratios of bad rates, whose expected gain
//! under equal quality is 1 (exactly: it is linear in the share). The product of the gains over the
//! blocks is an E value: it reaches 1/α with a probability of at most α, whenever it is looked at
//! (Ville's inequality), and so is the mean of several.

use super::count::Sides;

/// The ratios of bad rates that are bet on. The mixture ignores ratios below about 1.2.
pub const RATIOS: [f64; 6] = [1.5, 2.0, 3.0, 5.0, 10.0, 30.0];

/// One number for each of [`RATIOS`]: logarithms of gains.
pub type Logs = [f64; RATIOS.len()];

/// The logarithm of each bet's gain in a block; `ratio` is the tolerated ratio of bad rates (r0 > 0).
///
/// `None` where the block says nothing: no bad event, or a side without requests.
#[must_use]
pub fn vote(block: &Sides, ratio: f64) -> Option<Logs> {
    let (candidate, stable) = (block.candidate, block.stable);
    let bad = candidate.bad + stable.bad;
    if bad == 0 || candidate.requests == 0 || stable.requests == 0 {
        return None;
    }
    let share = |odds: f64| {
        let part = odds * candidate.requests as f64;
        part / (part + stable.requests as f64)
    };
    let seen = candidate.bad as f64 / bad as f64;
    let fair = share(ratio);
    Some(RATIOS.map(|times| {
        let bet = share(ratio * times);
        (seen * bet / fair + (1.0 - seen) * (1.0 - bet) / (1.0 - fair)).ln()
    }))
}

/// The E value of accumulated logarithms: the mean of the six products.
#[must_use]
pub fn e_value(logs: &Logs) -> f64 {
    logs.iter().map(|log| log.exp()).sum::<f64>() / RATIOS.len() as f64
}

#[cfg(test)]
mod tests {
    use super::{super::count::Count, *};

    type Block = (u64, u64, u64, u64);

    fn e(blocks: &[Block], ratio: f64) -> f64 {
        let mut logs = Logs::default();
        for &(n_c, n_s, e_c, e_s) in blocks {
            let block = Sides {
                candidate: Count::new(n_c, e_c),
                stable: Count::new(n_s, e_s),
            };
            for (log, gain) in logs.iter_mut().zip(vote(&block, ratio).unwrap_or_default()) {
                *log += gain;
            }
        }
        e_value(&logs)
    }

    #[test]
    fn blocks_give_these_e_values() {
        let six = 6e-7;
        let three = 6e-4;
        let cases: [(&[Block], f64, f64, f64); 12] = [
            (&[(30, 570, 1, 0)], 1.0, 4.900_594, six),
            (&[(30, 570, 3, 3)], 1.0, 2.847_650, six),
            (&[(30, 570, 0, 3)], 1.0, 0.794_706, six),
            (&[(30, 570, 2, 3); 2], 1.0, 7.838_952, six),
            (&[(100, 100, 5, 5)], 1.0, 1.0, six),
            (&[(0, 600, 0, 3)], 1.0, 1.0, six),
            (&[(600, 0, 3, 0)], 1.0, 1.0, six),
            (&[], 1.0, 1.0, six),
            (&[(30, 570, 3, 3)], 1.25, 2.650_425, six),
            (&[(2, 38, 1, 0)], 1.0, 4.901, three),
            (&[(2, 38, 1, 0); 2], 1.0, 38.011, three),
            (&[(2, 38, 1, 0); 3], 1.0, 377.776, three),
        ];
        for (blocks, ratio, expected, digits) in cases {
            let got = e(blocks, ratio);
            assert!(
                (got - expected).abs() <= digits,
                "{blocks:?} with {ratio}: {got}, not {expected}"
            );
        }
    }

    #[test]
    fn a_block_without_news_is_no_vote() {
        for (n_c, n_s, e_c, e_s) in [
            (30, 570, 0, 0),
            (0, 600, 0, 3),
            (600, 0, 3, 0),
            (0, 0, 0, 0),
        ] {
            let block = Sides {
                candidate: Count::new(n_c, e_c),
                stable: Count::new(n_s, e_s),
            };
            assert_eq!(vote(&block, 1.0), None, "{block:?}");
        }
    }

    /// The heart of it: under equal quality a bet's expected gain is exactly 1, since it is linear in
    /// the share. Checked over every way that k bad events can fall on 7 of 100 requests, when they all
    /// fall on one side together (a burst) and when each falls by itself.
    #[test]
    fn under_equal_quality_no_bet_gains_anything_on_average() {
        let fair = 0.07;
        for bad in [1_u64, 4, 16] {
            for place in 0..RATIOS.len() {
                let gain = |on_candidate: u64| {
                    let block = Sides {
                        candidate: Count::new(7, on_candidate),
                        stable: Count::new(93, bad - on_candidate),
                    };
                    vote(&block, 1.0).expect("a vote")[place].exp()
                };
                let burst = fair * gain(bad) + (1.0 - fair) * gain(0);
                let mut single = 0.0;
                let mut chance = (1.0_f64 - fair).powi(i32::try_from(bad).expect("in range"));
                for on_candidate in 0..=bad {
                    single += chance * gain(on_candidate);
                    chance *= (bad - on_candidate) as f64 / (on_candidate + 1) as f64 * fair
                        / (1.0 - fair);
                }
                assert!((burst - 1.0).abs() < 1e-9, "{burst}");
                assert!((single - 1.0).abs() < 1e-9, "{single}");
            }
        }
    }
}
