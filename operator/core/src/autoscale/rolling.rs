//! A sum over about the last while, in two blocks: between one and two of them, and never empty at their seam.

use std::{ops::AddAssign, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rollout::clock::passed;

/// Two blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rolling<T> {
    since: Timestamp,
    current: T,
    before: T,
}

impl<T: Default + Clone + for<'a> AddAssign<&'a T>> Rolling<T> {
    /// Empty.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            since: now,
            current: T::default(),
            before: T::default(),
        }
    }

    /// Adds to the current block, and begins another where it is as old as a block gets.
    pub fn add(&mut self, what: &T, block: Duration, now: Timestamp) {
        self.turn(block, now);
        self.current += what;
    }

    /// Lets time pass.
    pub fn turn(&mut self, block: Duration, now: Timestamp) {
        let age = passed(self.since, now);
        if age >= block {
            let last = std::mem::take(&mut self.current);
            self.before = match age < 2 * block {
                true => last,
                false => T::default(),
            };
            self.since = now;
        }
    }

    /// Both blocks.
    #[must_use]
    pub fn sum(&self) -> T {
        let mut sum = self.before.clone();
        sum += &self.current;
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoscale::batching::Batches;

    #[test]
    fn what_is_older_than_two_blocks_is_gone() {
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).expect("a time");
        let block = Duration::from_secs(60);
        let mut one = Batches::default();
        one.count(1, 0.5);
        let mut rolling = Rolling::new(at(0));
        // second, batches in both blocks then
        for (second, batches) in [(0, 1), (59, 2), (60, 3), (119, 4), (120, 3), (300, 1)] {
            rolling.add(&one, block, at(second));
            assert_eq!(rolling.sum().batches, batches, "at {second} s");
        }
    }
}
