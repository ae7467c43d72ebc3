//! What is known of a rollout between two looks: `.status.rollout`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    clock::Timer,
    evidence::{Evidence, Signal},
    policy::Weight,
};
use crate::revision::RevisionName;

/// Where a rollout stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// What is going on.
    pub phase: Phase,
    /// Since when, pauses left out.
    pub timer: Timer,
    /// The revision that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<RevisionName>,
    /// The revision that is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RevisionName>,
    /// The share that the candidate should have.
    pub weight: Weight,
    /// The shares that the routers obey.
    pub traffic: BTreeMap<RevisionName, Weight>,
    /// Counts the changes of `traffic`.
    pub generation: u64,
    /// The stable revision of before, kept for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// Why it stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Whether the candidate was stable before: it goes back without steps and tests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub back: bool,
    /// Whether `promote` was commanded: no further steps, no approval.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub promote: bool,
    /// Since when the candidate has no ready pod although it has traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Timestamp>,
    /// Since when the stable revision has none although the service is awake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_lost: Option<Timestamp>,
    /// What is slow, for this candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<Edge>,
    /// The same of the pods' own runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_edge: Option<Edge>,
    /// The same of the objective, as it was written when the candidate first got traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo_edge: Option<Edge>,
    /// How far the candidate agrees with the golden set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<String>,
    /// The last command that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What is known against the candidate; after a failure, what was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// What is slow: requests over the bound of a bucket. It is settled at a change of the traffic, from what the stable
/// revision did before, and stays as it is for this candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// The last bucket that is not slow.
    pub bucket: u16,
    /// The first generation of the traffic whose requests are judged by it.
    pub from: u64,
}

/// What is going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Phase {
    /// The stable revision has the traffic.
    Stable,
    /// `Recreate`: the old revision's pods end.
    Stopping,
    /// The candidate's pods start; signature and golden set are looked at.
    Preparing,
    /// The candidate answers copies of requests.
    Shadowing,
    /// A step of the canary.
    Step {
        /// Which, from 0.
        index: usize,
        /// How far it is.
        stage: Stage,
    },
    /// `promote` is waited for.
    AwaitingApproval,
    /// The candidate takes everything.
    Promoting {
        /// How far it is.
        stage: PromotionStage,
    },
    /// The candidate is taken back.
    Aborting {
        /// How far it is.
        stage: AbortStage,
        /// What follows.
        then: Then,
    },
    /// A revision failed; the stable one serves. Until the spec changes, or `retry`.
    Failed {
        /// Which.
        revision: RevisionName,
        /// Why.
        why: Failure,
    },
}

/// A step's stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Pods for the share start.
    PreScale,
    /// The weights are written; every router has to follow.
    Shift,
    /// It is watched.
    Soak,
    /// Its time is over: are there enough requests?
    Analyse,
}

/// A promotion's stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PromotionStage {
    /// Pods for everything start.
    PreScale,
    /// The weights are written; every router has to follow.
    Shift,
    /// It is watched with all of the traffic, the old pods still there.
    Settle,
}

/// An abort's stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AbortStage {
    /// The stable revision gets pods for everything; the candidate serves until it has them.
    ScaleStable,
    /// The weights are written; every router has to follow.
    ShiftBack,
    /// The candidate finishes what it has.
    Drain,
}

/// What follows on an abort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Then {
    /// The revision failed.
    Fail(Failure),
    /// The spec asks for something else.
    Leave,
}

/// Why a revision failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One word, for the condition, the event and the metric.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A revision that was stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Which.
    pub revision: RevisionName,
    /// Since when it no longer is.
    pub since: Timestamp,
    /// How many pods it had.
    pub replicas: u32,
}

/// Why a rollout stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pause {
    /// By command.
    Commanded,
    /// A step got too few requests. It goes on by itself when they come.
    Inconclusive,
}

impl State {
    /// What is known when nothing is: the stable revision, if there is a mark of one.
    #[must_use]
    pub fn new(stable: Option<RevisionName>, now: Timestamp) -> Self {
        let traffic = stable.iter().map(|name| (name.clone(), Weight::ALL));
        Self {
            phase: Phase::Stable,
            timer: Timer::new(now),
            traffic: traffic.collect(),
            stable,
            candidate: None,
            weight: Weight::NONE,
            generation: 1,
            kept: None,
            pause: None,
            back: false,
            promote: false,
            lost: None,
            stable_lost: None,
            edge: None,
            run_edge: None,
            slo_edge: None,
            validation: None,
            command: None,
            evidence: None,
        }
    }

    /// What is slow, by signal.
    #[must_use]
    pub fn edges(&self) -> BTreeMap<Signal, Edge> {
        let all = [
            (Signal::SlowerThanStable, self.edge),
            (Signal::ServiceTime, self.run_edge),
            (Signal::SlowerThanSlo, self.slo_edge),
        ];
        let settled = all.into_iter();
        settled
            .filter_map(|(signal, edge)| Some((signal, edge?)))
            .collect()
    }

    /// The candidate's share that the routers obey.
    #[must_use]
    pub fn routed(&self) -> Weight {
        let candidate = self.candidate.as_ref();
        candidate
            .and_then(|name| self.traffic.get(name).copied())
            .unwrap_or_default()
    }
}
