//! What is read before a rollout is decided on.

use std::collections::BTreeMap;

use super::{
    capacity::Load,
    evidence::{Count, Drift, Reading, Signal},
};
use crate::{health::Health, revision::RevisionName};

/// Everything that is read of a rollout.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The revision that the spec asks for.
    pub wanted: RevisionName,
    /// How each revision's pods are doing.
    pub health: BTreeMap<RevisionName, Health>,
    /// What the service carries. Its replicas are 0 while it sleeps.
    pub load: Load,
    /// Requests a second that one replica of a revision serves within the objective, where known.
    pub per_replica: BTreeMap<RevisionName, f64>,
    /// Counters of routers and pods.
    pub readings: Vec<Reading>,
    /// Whether every router was heard of lately. When not, nothing is concluded from silence.
    pub complete: bool,
    /// The traffic generation that every router follows; `None` when that is not known.
    pub followed: Option<u64>,
    /// What the stable revision did in the last ten minutes, by signal.
    pub recent: BTreeMap<Signal, Count>,
    /// The bucket of times over which a request is slow for the stable revision, where it had requests enough to say.
    pub slow: Option<u16>,
    /// The same of what pods say that their runs took.
    pub slow_runs: Option<u16>,
    /// How far the classes of the candidate's answers are from those of the stable revision's, where they are compared.
    pub drift: Option<Drift>,
    /// The candidate's inputs and outputs beside the stable revision's.
    pub signature: Signature,
    /// The golden set's verdict on the candidate.
    pub golden: Golden,
    /// The command annotation.
    pub command: Option<String>,
}

/// The candidate's inputs and outputs beside the stable revision's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Signature {
    /// Not known yet.
    #[default]
    Unknown,
    /// The same.
    Same,
    /// Wider: every old request is still answered. The difference.
    Widened(String),
    /// Old requests would not be answered. The difference.
    Incompatible(String),
}

/// The golden set's verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Golden {
    /// The spec names none.
    #[default]
    None,
    /// Under way.
    Running,
    /// The file or a pod could not be reached; it is tried again. Why.
    Unreached(String),
    /// The candidate agrees. How far.
    Passed(String),
    /// It does not. How far.
    Failed(String),
}

impl Observed {
    /// A revision's pods that take requests.
    #[must_use]
    pub fn ready(&self, revision: &RevisionName) -> u32 {
        let ready = self.health.get(revision).map_or(0, |health| health.ready);
        u32::try_from(ready).unwrap_or(0)
    }

    /// A revision's pods, ready or not, those on their way out too.
    #[must_use]
    pub fn pods(&self, revision: &RevisionName) -> u32 {
        let pods = self.health.get(revision).map_or(0, |health| health.pods);
        u32::try_from(pods).unwrap_or(0)
    }
}
