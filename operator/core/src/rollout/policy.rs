//! What the user wants of a rollout: `spec.rollout`, with every default filled in.
//!
//! Plain types; [`super::spec`] reads them from the CRD's.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    evidence::{Signal, Tolerated},
    times,
};

/// A share of the traffic in whole per cent, 0 to 100.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct Weight(u8);

impl Weight {
    /// No traffic.
    pub const NONE: Self = Self(0);
    /// All of it.
    pub const ALL: Self = Self(100);

    /// A share; `None` above 100.
    #[must_use]
    pub const fn new(percent: u8) -> Option<Self> {
        match percent {
            0..=100 => Some(Self(percent)),
            _ => None,
        }
    }

    /// In per cent.
    #[must_use]
    pub const fn percent(self) -> u8 {
        self.0
    }

    /// What is left of the traffic.
    #[must_use]
    pub const fn rest(self) -> Self {
        Self(100 - self.0)
    }
}

impl TryFrom<u8> for Weight {
    type Error = String;

    fn try_from(percent: u8) -> Result<Self, String> {
        Self::new(percent).ok_or(format!("the weight is {percent}; write 0 to 100"))
    }
}

impl From<Weight> for u8 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// How a new revision takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// In steps, or with a weight set by hand.
    Canary(Split),
    /// All at once, when all its pods are ready beside the old ones.
    BlueGreen,
    /// The old pods end first: for devices of which there are none to spare.
    Recreate,
}

/// How a canary's traffic is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Split {
    /// `steps`: by itself, while the evidence allows it.
    Steps(Vec<CanaryStep>),
    /// `weight`: stays until it is changed, or until `promote`.
    Weight(Weight),
}

/// One step of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryStep {
    /// The candidate's share.
    pub weight: Weight,
    /// How long it is watched at least.
    pub soak: Duration,
}

/// Whether somebody has to agree to the promotion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approval {
    /// The evidence is enough.
    #[default]
    Automatic,
    /// `promote` is waited for.
    Manual,
}

/// What happens when a step gets too few requests to be judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnInconclusive {
    /// It waits for requests, or for a command.
    #[default]
    Pause,
    /// The candidate is taken back.
    Abort,
    /// It goes on without: the golden set and the hard guards are all there is.
    Continue,
}

/// `analysis`.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// 1 − α, above 0 and below 1.
    pub confidence: f64,
    /// The ratio of bad rates that is tolerated, above 0.
    pub max_error_rate_ratio: f64,
    /// The share of compared answers that may differ, 0 to 1.
    pub max_disagreement: f64,
    /// An answer that begins later is a bad one: the last bucket of times that is not, of [`ortolan_stats::latency`].
    pub max_latency: Option<u16>,
    /// Requests that the candidate has to answer in a step; of compared answers, before it gets any.
    pub min_requests: u64,
    /// What happens when it does not get them.
    pub on_inconclusive: OnInconclusive,
    /// How long they are waited for after the soak.
    pub deadline: Duration,
    /// How long the candidate is watched with all of the traffic before it is promoted.
    pub settle: Duration,
    /// What is tested. Settled when a candidate begins.
    pub signals: BTreeSet<Signal>,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            confidence: 0.99,
            max_error_rate_ratio: 1.0,
            max_disagreement: 0.01,
            max_latency: None,
            min_requests: 100,
            on_inconclusive: OnInconclusive::Pause,
            deadline: Duration::from_secs(3600),
            settle: times::SETTLE,
            signals: BTreeSet::from([Signal::Errors]),
        }
    }
}

impl Analysis {
    /// What is tolerated of a candidate.
    #[must_use]
    pub const fn tolerated(&self) -> Tolerated {
        Tolerated {
            ratio: self.max_error_rate_ratio,
            disagreement: self.max_disagreement,
        }
    }
}

/// `spec.rollout`, and what else of the spec matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How a new revision takes over.
    pub strategy: Strategy,
    /// Weights and timers of a rollout under way stand still.
    pub paused: bool,
    /// The service has no pods at all.
    pub suspended: bool,
    /// Whether somebody has to agree.
    pub approval: Approval,
    /// How the evidence is judged.
    pub analysis: Analysis,
    /// Per cent of the requests whose answers are compared before the candidate gets any of its own.
    pub shadow: Option<u8>,
    /// How long the old revision is kept after a promotion.
    pub rollback_window: Duration,
    /// How long pods may take to be ready.
    pub progress_deadline: Duration,
    /// Whether anybody counts requests. Where not, a shift that has not arrived is waited for without end: pods that
    /// Gateways still send requests to do not go.
    pub counts: bool,
}

impl Default for Policy {
    fn default() -> Self {
        let step = |percent, minutes: u64| CanaryStep {
            weight: Weight(percent),
            soak: Duration::from_secs(60 * minutes),
        };
        Self {
            strategy: Strategy::Canary(Split::Steps(vec![step(5, 2), step(25, 2), step(50, 5)])),
            paused: false,
            suspended: false,
            approval: Approval::Automatic,
            analysis: Analysis::default(),
            shadow: None,
            rollback_window: Duration::from_secs(3600),
            progress_deadline: Duration::from_secs(600),
            counts: true,
        }
    }
}
