//! How far replicas may go at once: so many per cent of what they were at the beginning of a period, one always.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::Step;
use crate::rollout::clock::passed;

/// What replicas were when a period began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    at: Timestamp,
    replicas: u32,
}

/// The anchor that counts now: a new one where the last period is over.
fn anchor(before: Option<Anchor>, current: u32, step: Step, now: Timestamp) -> Anchor {
    let new = Anchor {
        at: now,
        replicas: current,
    };
    let running = before.filter(|anchor| passed(anchor.at, now) < step.period);
    running.unwrap_or(new)
}

fn share(replicas: u32, step: Step) -> u32 {
    let part = u64::from(replicas) * u64::from(step.percent.get()) / 100;
    u32::try_from(part).unwrap_or(u32::MAX).max(1)
}

/// The most that replicas may go up to now, and the anchor to remember when they do.
pub fn ceiling(before: Option<Anchor>, current: u32, step: Step, now: Timestamp) -> (u32, Anchor) {
    let anchor = anchor(before, current, step, now);
    let most = anchor
        .replicas
        .saturating_add(share(anchor.replicas.max(1), step));
    (most.max(current), anchor)
}

/// The least that replicas may go down to now, and the anchor to remember when they do.
pub fn floor(before: Option<Anchor>, current: u32, step: Step, now: Timestamp) -> (u32, Anchor) {
    let anchor = anchor(before, current, step, now);
    let least = anchor.replicas.saturating_sub(share(anchor.replicas, step));
    (least.min(current), anchor)
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    fn step(percent: u32) -> Step {
        Step {
            percent: NonZeroU32::new(percent).expect("above nothing"),
            period: Duration::from_secs(60),
        }
    }

    #[test]
    fn half_of_the_replicas_may_go_in_a_minute_and_one_always() {
        let (least, anchor) = floor(None, 8, step(50), at(0));
        assert_eq!(least, 4);
        assert_eq!(floor(Some(anchor), 4, step(50), at(59)).0, 4);
        assert_eq!(floor(Some(anchor), 4, step(50), at(60)).0, 2);
        assert_eq!(floor(None, 1, step(50), at(0)).0, 0);
        assert_eq!(floor(None, 5, step(1), at(0)).0, 4);
    }

    #[test]
    fn ten_times_as_many_may_come_in_a_minute_and_one_always() {
        let (most, anchor) = ceiling(None, 2, step(900), at(0));
        assert_eq!(most, 20);
        assert_eq!(ceiling(Some(anchor), 20, step(900), at(59)).0, 20);
        assert_eq!(ceiling(Some(anchor), 20, step(900), at(60)).0, 200);
        assert_eq!(ceiling(None, 0, step(50), at(0)).0, 1);
        assert_eq!(ceiling(None, u32::MAX, step(900), at(0)).0, u32::MAX);
    }

    #[test]
    fn what_was_added_since_is_no_reason_to_take_it_away() {
        let (_, anchor) = ceiling(None, 2, step(100), at(0));
        assert_eq!(ceiling(Some(anchor), 9, step(100), at(10)).0, 9);
    }
}
