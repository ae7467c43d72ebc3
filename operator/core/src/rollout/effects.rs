//! What is to be done about a rollout.

use std::{collections::BTreeMap, time::Duration};

use super::policy::Weight;
use crate::{notice::Notice, revision::RevisionName};

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Effects {
    /// The shares that the routers obey; they sum to 100, or there is no revision at all.
    pub traffic: BTreeMap<RevisionName, Weight>,
    /// Which change of the traffic this is.
    pub generation: u64,
    /// The stable revision: its mark is written before the status.
    pub stable: Option<RevisionName>,
    /// How many pods each revision has at least. A revision with 0 is kept without pods; one that is
    /// not named is removed.
    pub floors: BTreeMap<RevisionName, u32>,
    /// Requests whose answers are compared.
    pub mirror: Option<Mirror>,
    /// The condition's reason and message.
    pub tell: Tell,
    /// Look again after this time even if nothing changes.
    pub requeue: Option<Duration>,
    /// Events.
    pub notices: Vec<Notice>,
}

/// Copies of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Who gets them.
    pub to: RevisionName,
    /// How many of a hundred.
    pub percent: u8,
}

/// What a condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}
