//! The most that was needed within a while: replicas do not go below it.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rollout::clock::passed;

/// Needs that are remembered, at most; beyond them neighbours become one, the larger at the later time.
const ENTRIES: usize = 64;

/// Needs that no later one reaches, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold(VecDeque<(Timestamp, u32)>);

impl Hold {
    /// Remembers a need, and forgets those that are older than the window.
    pub fn push(&mut self, need: u32, window: Duration, now: Timestamp) {
        while self.0.back().is_some_and(|(_, last)| *last <= need) {
            self.0.pop_back();
        }
        if self.0.len() >= ENTRIES
            && let Some(last) = self.0.back_mut()
        {
            last.0 = now;
        } else {
            self.0.push_back((now, need));
        }
        self.0.retain(|(at, _)| passed(*at, now) <= window);
    }

    /// The most.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.0.front().map_or(0, |(_, need)| *need)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    #[test]
    fn the_most_of_the_window_holds() {
        let mut hold = Hold::default();
        let window = Duration::from_secs(300);
        // second, need, the most of the window
        for (second, need, most) in [
            (0, 4, 4),
            (10, 9, 9),
            (20, 3, 9),
            (310, 2, 9),
            (311, 2, 3),
            (320, 2, 3),
            (321, 1, 2),
            (700, 1, 1),
        ] {
            hold.push(need, window, at(second));
            assert_eq!(hold.most(), most, "at {second} s");
        }
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_forgotten_early() {
        let mut hold = Hold::default();
        for second in 0..200 {
            let need = 1_000 - u32::try_from(second).expect("small");
            hold.push(need, Duration::from_secs(100), at(second));
            let least = 1_000 - u32::try_from(second).expect("small").min(100);
            assert!(hold.most() >= need.max(least), "at {second} s");
            assert!(hold.0.len() <= ENTRIES);
        }
    }
}
