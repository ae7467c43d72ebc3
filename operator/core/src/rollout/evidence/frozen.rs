//! The sequential test while the stable revision has no traffic: against the rate that it had before.
//!
//! Its bad rate is frozen at the shift, as the upper end of what its last ten minutes allow, so that
//! luck of the stable revision is not held against the candidate. What an outage of something that
//! both need does after the shift looks like the candidate's doing: nothing is left to compare with.

use super::{
    count::Count,
    share::{Logs, RATIOS},
};

/// The normal quantile of 99 %, one-sided.
const Z: f64 = 2.326;
/// The lowest rate that is tested against: below it one bad request in a block would decide.
const LOWEST: f64 = 0.001;
/// No bet risks more than this part of what it has.
const AT_RISK: f64 = 0.9;

/// The upper end of Wilson's interval for a rate (one-sided, 99 %); `None` without requests.
#[must_use]
pub fn upper_wilson(count: Count) -> Option<f64> {
    let rate = count.rate()?;
    let n = count.requests as f64;
    let square = Z * Z / n;
    let spread = (rate * (1.0 - rate) / n + square / (4.0 * n)).sqrt();
    Some((rate + square / 2.0 + Z * spread) / (1.0 + square))
}

/// The rate that a candidate is held against once the stable revision has no traffic left, from
/// what the stable revision did before; `None` when it did nothing: then there is no test.
#[must_use]
pub fn frozen_rate(stable: Count) -> Option<f64> {
    upper_wilson(stable).map(|rate| rate.clamp(LOWEST, 1.0))
}

/// The rate that pairs of the candidate's and the stable revision's answers are held against: what is allowed (0 to 1),
/// and what the stable revision's answers to the same request, given twice, differ in. `None` without such pairs: then
/// nothing says what is usual. A model that never differed from itself is not held to do so.
#[must_use]
pub fn disagreement_rate(stable: Count, allowed: f64) -> Option<f64> {
    let usual = match stable.bad {
        0 => stable.rate()?,
        _ => upper_wilson(stable)?,
    };
    Some((allowed + usual).clamp(LOWEST, 1.0))
}

/// The logarithm of each bet's gain in a block of candidate requests; `None` without requests.
#[must_use]
pub fn vote(candidate: Count, rate: f64) -> Option<Logs> {
    let above = candidate.rate()? - rate;
    Some(RATIOS.map(|times| {
        let stake = ((times - 1.0) / (1.0 - rate)).min(AT_RISK / rate);
        (1.0 + stake * above).ln()
    }))
}

#[cfg(test)]
mod tests {
    use super::{super::share::e_value, *};

    #[test]
    fn blocks_give_these_e_values() {
        let cases = [
            ((100, 5), 0.005, 1, 1.342_965),
            ((100, 5), 0.005, 3, 3.381_945),
            ((100, 0), 0.005, 1, 0.961_893),
            ((60, 1), 0.01, 1, 1.051_066),
            ((60, 60), 0.01, 1, 8.583_333),
        ];
        for ((requests, bad), rate, times, expected) in cases {
            let gain = vote(Count::new(requests, bad), rate).expect("a vote");
            let got = e_value(&gain.map(|log| log * f64::from(times)));
            assert!(
                (got - expected).abs() <= 6e-7,
                "{times} × ({requests}, {bad}) against {rate}: {got}, not {expected}"
            );
        }
    }

    #[test]
    fn the_upper_end_of_wilsons_interval_is_this() {
        let cases = [
            ((600, 0), 0.008_936_55),
            ((600, 3), 0.017_425_3),
            ((1, 1), 1.0),
            ((10, 10), 1.0),
        ];
        for ((requests, bad), expected) in cases {
            let got = upper_wilson(Count::new(requests, bad)).expect("a rate");
            assert!((got - expected).abs() < 2e-6, "{bad} of {requests}: {got}");
        }
        assert_eq!(upper_wilson(Count::default()), None);
    }

    #[test]
    fn the_frozen_rate_is_never_below_a_thousandth_and_absent_without_requests() {
        assert_eq!(frozen_rate(Count::new(1_000_000, 0)), Some(LOWEST));
        assert!(frozen_rate(Count::new(600, 3)).expect("a rate") > 0.017);
        assert_eq!(frozen_rate(Count::default()), None);
        assert_eq!(vote(Count::default(), 0.01), None);
    }

    #[test]
    fn pairs_are_held_against_what_is_allowed_and_what_the_stable_revision_does_itself() {
        for (stable, allowed, expected) in [
            ((100, 0), 0.01, Some(0.01)),
            ((100, 0), 0.0, Some(LOWEST)),
            ((0, 0), 0.01, None),
            ((10, 10), 0.01, Some(1.0)),
        ] {
            let (requests, bad) = stable;
            let rate = disagreement_rate(Count::new(requests, bad), allowed);
            assert_eq!(rate, expected, "{stable:?}");
        }
        let wavers = disagreement_rate(Count::new(600, 3), 0.01).expect("a rate");
        assert!((wavers - 0.027_425_3).abs() < 2e-6, "{wavers}");
    }

    #[test]
    fn no_block_ruins_a_bet_for_good_at_any_frozen_rate() {
        for rate in [0.001, 0.01, 0.5, 0.999, 1.0] {
            for bad in [0, 30, 60] {
                let gains = vote(Count::new(60, bad), rate).expect("a vote");
                assert!(
                    gains.iter().all(|g| g.is_finite()),
                    "{rate} {bad}: {gains:?}"
                );
            }
        }
    }
}
