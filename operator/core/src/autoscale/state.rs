//! What is remembered between two looks. All of it can be written down, to replay a decision; [`Kept`] is what has to
//! survive a restart.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    burst::Bursts,
    capacity::Learned,
    config::Latency,
    correction::Correction,
    delta::Baselines,
    histogram::Histogram,
    hold::Hold,
    limits::Anchor,
    rest::Rest,
    rolling::Rolling,
    sample::{Requests, Work},
    window::Window,
};
use crate::rollout::clock::passed;

/// What survives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The last decision; `None` where nothing was decided yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<u32>,
    /// The most that was needed lately.
    #[serde(default)]
    pub hold: u32,
    /// What the capacity is multiplied by, at this objective.
    #[serde(default)]
    pub correction: Correction,
    /// What one replica carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<Learned>,
    /// Whether the service sleeps.
    #[serde(default)]
    pub rest: Rest,
}

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub(super) kept: Kept,
    /// Since when it is remembered: what came before is not known.
    pub(super) since: Timestamp,
    /// The last look.
    pub(super) at: Option<Timestamp>,
    /// For which objective slow requests were counted.
    pub(super) latency: Option<Latency>,
    pub(super) routers: Baselines<Requests>,
    pub(super) pods: Baselines<Work>,
    pub(super) window: Window,
    pub(super) answers: Rolling<Histogram>,
    pub(super) work: Rolling<Work>,
    pub(super) bursts: Bursts,
    pub(super) hold: Hold,
    /// What was wanted of the last minute, expectations included.
    pub(super) brief: Hold,
    /// When the number of replicas last changed.
    pub(super) changed: Timestamp,
    /// When the correction was last looked at.
    pub(super) corrected: Timestamp,
    /// Until when a burst rules.
    pub(super) panic: Option<Timestamp>,
    pub(super) up: Option<Anchor>,
    pub(super) down: Option<Anchor>,
    /// Since when nobody asked anything.
    pub(super) quiet: Option<Timestamp>,
}

impl State {
    /// Begins with what was kept: nothing goes down for one stabilization window.
    #[must_use]
    pub fn resume(kept: Kept, now: Timestamp) -> Self {
        let mut hold = Hold::default();
        let most = kept.hold.max(kept.wish.unwrap_or(0));
        hold.push(most, Duration::ZERO, now);
        Self {
            kept,
            since: now,
            at: None,
            latency: kept.learned.map(|learned| learned.latency),
            routers: Baselines::default(),
            pods: Baselines::default(),
            window: Window::default(),
            answers: Rolling::new(now),
            work: Rolling::new(now),
            bursts: Bursts::new(now),
            hold,
            brief: Hold::default(),
            changed: now,
            corrected: now,
            panic: None,
            up: None,
            down: None,
            quiet: None,
        }
    }

    /// Begins with nothing.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self::resume(Kept::default(), now)
    }

    /// What has to survive a restart.
    #[must_use]
    pub const fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(super) fn panics(&self, now: Timestamp) -> bool {
        self.panic
            .is_some_and(|until| !passed(now, until).is_zero())
    }
}
