//! Which revision gets the requests, which revisions have pods, and what is going on, where there are no routers: a
//! Service selects the pods of one revision. With routers [`crate::rollout`] decides, into the same [`Decision`].
//!
//! `BlueGreen`: the candidate starts beside the stable revision and takes over when all its pods are
//! ready; the old one keeps its pods until the Service has certainly moved ([`SETTLE`], and
//! [`AFTERMATH`] when the API server was away), then goes. A candidate that fails never gets a
//! request, and stays to be looked at.
//! `Recreate`: no revision starts while pods of another are left.
//!
//! The stable revision is the newest mark on a ControllerRevision; `promote` asks for a new mark.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use ortolan_crds::RolloutStatus;

use crate::{failure::Cause, health::Health, revision::RevisionName, rollout::effects::Tell};

/// How long the old revision keeps its pods after the Service has moved. EndpointSlices and
/// kube-proxy follow within a second or two on a calm cluster; each pod then serves on for 5 s more
/// after it was told to end.
pub const SETTLE: Duration = Duration::from_secs(10);
/// How long the old revision keeps its pods at least after the API server was away. Each kube-proxy
/// asks for its watches again after a pause that has grown to 30 s by then, and up to twice that with
/// its jitter; until then it sends requests to the old pods (seen: 64 s after an outage of 30 s).
pub const AFTERMATH: Duration = Duration::from_secs(75);

/// How a new revision takes over without routers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// The new revision starts beside the old one.
    #[default]
    BlueGreen,
    /// The old revision stops first.
    Recreate,
}

/// What the decision is made from.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// How a new revision takes over.
    pub strategy: Strategy,
    /// Whether the user stopped the service.
    pub suspended: bool,
    /// How many pods the serving revision should have (0 when suspended).
    pub replicas: i32,
    /// The revision that serves, and since when.
    pub stable: Option<(&'a RevisionName, Timestamp)>,
    /// The revision that the spec asks for.
    pub wanted: &'a RevisionName,
    /// Every revision that has a Deployment or pods.
    pub health: &'a BTreeMap<RevisionName, Health>,
    /// When the API server last did not answer, if that is known.
    pub outage: Option<Timestamp>,
    /// The time.
    pub now: Timestamp,
}

/// What is going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The user stopped the service.
    Suspended,
    /// The first revision is not ready yet; the cause when something is wrong.
    Starting(Option<Cause>),
    /// The first revision cannot start.
    StartFailed(Cause),
    /// The revision that the spec asks for serves with all its pods.
    Serving,
    /// It serves with fewer pods than wanted, or with none.
    Recovering(Option<Cause>),
    /// The pods of the revision that serves fail for good.
    Broken(Cause),
    /// A candidate starts beside the stable revision; the cause when something is wrong.
    RollingOut(Option<Cause>),
    /// A candidate cannot start.
    RolloutFailed(Cause),
    /// `Recreate`: the old revision's pods have to end first.
    Stopping(RevisionName),
    /// Routers move the traffic to a candidate, or back.
    Moving {
        /// How far it is.
        tell: Tell,
        /// What is wrong with the candidate's pods.
        cause: Option<Cause>,
    },
}

impl Phase {
    /// Of a first revision that does not serve yet.
    pub(crate) fn starting(health: &Health) -> Self {
        match health.failed() {
            Some(cause) => Self::StartFailed(cause.clone()),
            None => Self::Starting(health.cause.clone()),
        }
    }

    /// Of the stable revision, when the spec asks for it.
    pub(crate) fn steady(health: &Health, replicas: i32) -> Self {
        match (health.serves(replicas), health.failed()) {
            (true, _) => Self::Serving,
            (false, Some(cause)) => Self::Broken(cause.clone()),
            (false, None) => Self::Recovering(health.cause.clone()),
        }
    }
}

/// A revision's share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The revision.
    pub revision: RevisionName,
    /// Percent, 0 to 100.
    pub weight: u8,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The revision that the Service selects; with routers the one with the largest share.
    pub serve: RevisionName,
    /// Who gets which share of the requests.
    pub traffic: Vec<Share>,
    /// How many pods each revision has; one that is not named is removed.
    pub run: BTreeMap<RevisionName, i32>,
    /// Whether the wanted revision becomes the stable one now.
    pub promote: bool,
    /// The stable revision, where the newest mark is another one's: a promotion was marked, could not be written into the
    /// status, and was given up.
    pub astray: Option<RevisionName>,
    /// What is going on.
    pub phase: Phase,
    /// Look again after this time even if nothing changes.
    pub requeue: Option<Duration>,
    /// Where a rollout stands, where there are shares.
    pub rollout: Option<RolloutStatus>,
    /// How far the routes from outside are, where some are wanted.
    pub outside: Option<Outside>,
}

/// How far the routes of the Gateway API are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Whether every Gateway has taken every route as it is.
    pub routed: bool,
    /// Whether the spec is not what serves without that.
    pub blocks: bool,
    /// Whether it does not pass by itself.
    pub is_wrong: bool,
    /// Why, in one word: the Gateway's own where it refuses.
    pub reason: String,
    /// The same in a sentence.
    pub message: String,
    /// Whether HTTP passes: `None` when no such route is wanted, `Some(None)` when that is not known right now.
    pub http: Option<Option<bool>>,
    /// Whether gRPC passes.
    pub grpc: Option<Option<bool>>,
}

impl Share {
    /// All of the requests.
    #[must_use]
    pub fn all(revision: &RevisionName) -> Vec<Self> {
        vec![Self {
            revision: revision.clone(),
            weight: 100,
        }]
    }
}

/// Decides.
#[must_use]
pub fn step(facts: &Facts<'_>) -> Decision {
    let mut decision = match facts.stable {
        _ if facts.suspended => suspended(facts),
        None => first(facts),
        Some((stable, _)) if stable == facts.wanted => steady(facts),
        Some((stable, _)) => match facts.strategy {
            Strategy::BlueGreen => blue_green(facts, stable),
            Strategy::Recreate => recreate(facts, stable),
        },
    };
    if facts.strategy == Strategy::BlueGreen && !facts.suspended {
        keep_while_settling(facts, &mut decision);
    }
    decision
}

fn health<'a>(facts: &'a Facts<'_>, name: &RevisionName) -> &'a Health {
    static ABSENT: Health = Health {
        deployed: false,
        pods: 0,
        ready: 0,
        cause: None,
    };
    facts.health.get(name).unwrap_or(&ABSENT)
}

/// Another revision that still has pods or a Deployment that would make some.
fn other_with_pods<'a>(facts: &'a Facts<'_>, but: &RevisionName) -> Option<&'a RevisionName> {
    facts
        .health
        .iter()
        .find(|(name, health)| *name != but && health.pods > 0)
        .map(|(name, _)| name)
}

fn decision(facts: &Facts<'_>, serve: &RevisionName, phase: Phase) -> Decision {
    let run = BTreeMap::from([(facts.wanted.clone(), facts.replicas)]);
    Decision {
        serve: serve.clone(),
        traffic: Share::all(serve),
        run,
        promote: false,
        astray: None,
        phase,
        requeue: None,
        rollout: None,
        outside: None,
    }
}

fn suspended(facts: &Facts<'_>) -> Decision {
    let serve = facts.stable.map_or(facts.wanted, |(stable, _)| stable);
    let mut decision = decision(facts, serve, Phase::Suspended);
    decision.run = [serve, facts.wanted]
        .into_iter()
        .map(|name| (name.clone(), 0))
        .collect();
    decision
}

fn first(facts: &Facts<'_>) -> Decision {
    let wanted = health(facts, facts.wanted);
    if facts.strategy == Strategy::Recreate
        && let Some(old) = other_with_pods(facts, facts.wanted)
    {
        return stopping(facts, old, facts.wanted);
    }
    let phase = match wanted.serves(facts.replicas) {
        true => Phase::Serving,
        false => Phase::starting(wanted),
    };
    let promote = phase == Phase::Serving;
    Decision {
        promote,
        ..decision(facts, facts.wanted, phase)
    }
}

fn steady(facts: &Facts<'_>) -> Decision {
    if facts.strategy == Strategy::Recreate
        && !health(facts, facts.wanted).deployed
        && let Some(other) = other_with_pods(facts, facts.wanted)
    {
        return stopping(facts, other, facts.wanted);
    }
    let phase = Phase::steady(health(facts, facts.wanted), facts.replicas);
    decision(facts, facts.wanted, phase)
}

fn blue_green(facts: &Facts<'_>, stable: &RevisionName) -> Decision {
    let mut decision = candidate(facts, stable);
    if !decision.promote {
        decision.run.insert(stable.clone(), facts.replicas);
    }
    decision
}

fn recreate(facts: &Facts<'_>, stable: &RevisionName) -> Decision {
    match other_with_pods(facts, facts.wanted) {
        Some(old) => stopping(facts, old, stable),
        None => candidate(facts, facts.wanted),
    }
}

/// The wanted revision takes over as soon as it serves; until then the Service selects `meanwhile`.
fn candidate(facts: &Facts<'_>, meanwhile: &RevisionName) -> Decision {
    let health = health(facts, facts.wanted);
    if health.serves(facts.replicas) {
        return Decision {
            promote: true,
            ..decision(facts, facts.wanted, Phase::Serving)
        };
    }
    let phase = match health.failed() {
        Some(cause) => Phase::RolloutFailed(cause.clone()),
        None => Phase::RollingOut(health.cause.clone()),
    };
    decision(facts, meanwhile, phase)
}

/// Nothing runs until the old revision's pods are gone.
fn stopping(facts: &Facts<'_>, old: &RevisionName, serve: &RevisionName) -> Decision {
    let mut decision = decision(facts, serve, Phase::Stopping(old.clone()));
    decision.run.clear();
    decision
}

/// After a promotion every other revision keeps its pods until the Service has certainly moved.
fn keep_while_settling(facts: &Facts<'_>, decision: &mut Decision) {
    let since = match facts.stable {
        _ if decision.promote => facts.now,
        Some((_, since)) => since,
        None => return,
    };
    let left_of = |period: Duration, since| {
        let passed = Duration::try_from(facts.now.duration_since(since)).unwrap_or_default();
        period.saturating_sub(passed)
    };
    // A promotion of long before the outage has reached everybody.
    let recent = facts.outage.filter(|outage| since + AFTERMATH > *outage);
    let aftermath = recent.map(|outage| left_of(AFTERMATH, outage));
    let left = left_of(SETTLE, since).max(aftermath.unwrap_or_default());
    let first_start = decision.promote && facts.stable.is_none();
    if left.is_zero() || first_start {
        return;
    }
    for (name, health) in facts.health {
        if health.deployed && !decision.run.contains_key(name) {
            decision.run.insert(name.clone(), facts.replicas);
            decision.requeue = Some(left);
        }
    }
}

#[cfg(test)]
mod tests;
