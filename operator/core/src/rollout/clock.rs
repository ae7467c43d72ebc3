//! Time that passed, from timestamps of a clock that may be set back.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The time from `since` to `now`; none when the clock was set back in between.
#[must_use]
pub fn passed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// A timer that can be stopped: while it stands still nothing passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timer {
    /// When it began, moved forward by the time that it stood still.
    pub since: Timestamp,
    /// Since when it stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Timestamp>,
}

impl Timer {
    /// Begins now.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self {
            since: now,
            stopped: None,
        }
    }

    /// The time that passed while it ran.
    #[must_use]
    pub fn passed(&self, now: Timestamp) -> Duration {
        passed(self.since, self.stopped.unwrap_or(now))
    }

    /// Stops it, or lets it go on.
    pub fn run(&mut self, runs: bool, now: Timestamp) {
        match (runs, self.stopped) {
            (false, None) => self.stopped = Some(now),
            (true, Some(stopped)) => {
                self.since = self.since.checked_add(passed(stopped, now)).unwrap_or(now);
                self.stopped = None;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    #[test]
    fn nothing_passes_while_it_stands_still() {
        let mut timer = Timer::new(at(0));
        timer.run(false, at(10));
        timer.run(false, at(20));
        assert_eq!(timer.passed(at(500)), Duration::from_secs(10));
        timer.run(true, at(500));
        assert_eq!(timer.passed(at(500)), Duration::from_secs(10));
        assert_eq!(timer.passed(at(505)), Duration::from_secs(15));
    }

    #[test]
    fn a_clock_that_is_set_back_gives_no_negative_time() {
        let timer = Timer::new(at(100));
        assert_eq!(timer.passed(at(0)), Duration::ZERO);
        let mut timer = Timer::new(at(100));
        timer.run(false, at(110));
        timer.run(true, at(50));
        assert_eq!(timer.passed(at(115)), Duration::from_secs(15));
    }
}
