//! Sleep: when nobody asks anything the routers are told to hold what comes (seal), and after a grace nothing runs.
//!
//! ```text
//! Awake ──quiet for long──▶ Sealed ──30 s──▶ Asleep
//!   ▲───────any request────────┘                │
//!   └────────────────any request────────────────┘
//! ```
//!
//! The seal closes the gap between the last look and the end of the last pod: whatever comes in it waits at a router
//! and is seen. Never to sleep on missing data or in a rollout.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rollout::clock::passed;

/// From the seal until nothing runs.
pub const GRACE: Duration = Duration::from_secs(30);
/// Nothing that starts for so long is stopped for a tenth of that.
const STARTS: u32 = 10;

/// Whether the service sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Rest {
    /// It serves.
    #[default]
    Awake,
    /// Pods run, and routers hold what comes.
    Sealed {
        /// Since when.
        since: Timestamp,
    },
    /// Nothing runs, and routers hold what comes.
    Asleep,
}

/// What is known of the quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// After how long without requests it sleeps; `None` where it never may.
    pub idle: Option<Duration>,
    /// How long a start takes.
    pub start_up: Option<Duration>,
    /// Since when nothing came and nothing was in flight, with all data there; `None` where that is not so.
    pub since: Option<Timestamp>,
    /// Whether something came, waits or is in flight.
    pub asked: bool,
    /// Whether a rollout is under way.
    pub rollout: bool,
}

impl Rest {
    /// What follows.
    #[must_use]
    pub fn next(self, quiet: &Quiet, now: Timestamp) -> Self {
        let Some(idle) = quiet.idle else {
            return Self::Awake;
        };
        let wait = idle.max(STARTS * quiet.start_up.unwrap_or_default());
        let long = quiet.since.is_some_and(|since| passed(since, now) >= wait);
        let may = long && !quiet.asked && !quiet.rollout;
        match self {
            Self::Asleep if quiet.asked => Self::Awake,
            Self::Asleep => Self::Asleep,
            Self::Awake if may => Self::Sealed { since: now },
            Self::Sealed { since } if may && passed(since, now) >= GRACE => Self::Asleep,
            Self::Sealed { since } if may => Self::Sealed { since },
            Self::Awake | Self::Sealed { .. } => Self::Awake,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    const CALM: Quiet = Quiet {
        idle: Some(Duration::from_secs(300)),
        start_up: None,
        since: None,
        asked: false,
        rollout: false,
    };

    #[test]
    fn it_seals_waits_and_sleeps_and_any_request_wakes_it() {
        let quiet = |since| Quiet {
            since: Some(at(since)),
            ..CALM
        };
        let asked = Quiet {
            asked: true,
            ..CALM
        };
        let sealed = Rest::Sealed { since: at(300) };
        let steps = [
            (299, quiet(0), Rest::Awake),
            (300, quiet(0), sealed),
            (329, quiet(0), sealed),
            (330, quiet(0), Rest::Asleep),
            (900, quiet(0), Rest::Asleep),
            // Data is missing.
            (902, CALM, Rest::Asleep),
            (904, asked, Rest::Awake),
            (906, CALM, Rest::Awake),
        ];
        let mut rest = Rest::Awake;
        for (second, quiet, expected) in steps {
            rest = rest.next(&quiet, at(second));
            assert_eq!(rest, expected, "at {second} s");
        }
        for (name, quiet) in [
            ("a request", asked),
            ("missing data", CALM),
            (
                "a rollout",
                Quiet {
                    rollout: true,
                    ..quiet(0)
                },
            ),
        ] {
            assert_eq!(sealed.next(&quiet, at(330)), Rest::Awake, "{name}");
        }
    }

    #[test]
    fn what_starts_slowly_is_not_stopped_soon() {
        let slow = Quiet {
            since: Some(at(0)),
            start_up: Some(Duration::from_secs(60)),
            ..CALM
        };
        assert_eq!(Rest::Awake.next(&slow, at(599)), Rest::Awake);
        assert_ne!(Rest::Awake.next(&slow, at(600)), Rest::Awake);
    }

    #[test]
    fn what_may_not_sleep_wakes() {
        let never = Quiet { idle: None, ..CALM };
        assert_eq!(Rest::Asleep.next(&never, at(0)), Rest::Awake);
    }
}
