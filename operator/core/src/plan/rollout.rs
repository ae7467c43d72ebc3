//! The decision where shares can be set, by routers or by Gateways: [`crate::rollout::step`], carried into what the rest of the plan reads.
//!
//! What it remembers comes from `.status.rollout.state` and goes back there; nothing else remembers anything. A state
//! that was not written (only numbers changed, and the status was written a moment ago) is worked out again from the one
//! before: routers count monotonically, so nothing is lost by that.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ortolan_crds::{
    CountStatus, DriftStatus, MovedStatus, RolloutEvidence, RolloutPhase, RolloutStatus,
    ShadowStatus, SignalStatus, names,
};

use super::Planner;
use crate::{
    failure::{Cause, Class},
    health::Health,
    observed::About,
    revision::RevisionName,
    rollout::{
        self, Effects, Policy, State,
        capacity::Load,
        evidence::{Count, Drift, Evidence, Signal, limit},
        observed::{Golden, Signature},
        policy::{Split, Strategy},
        readings,
        routers::Routers,
        signature,
        spec::Splitter,
        state::{self as phases, Edge, Pause},
    },
    status::whole_seconds,
    step::{Decision, Phase, Share},
};

/// E values above this are written as this: JSON has no infinity, and nobody needs to know more.
const MOST: f64 = 1e9;

impl Planner<'_> {
    /// Decides, and adds the events of it.
    pub(super) fn decide_by_shares(&mut self, policy: &Policy) -> Decision {
        let before = self.remembered();
        let observed = self.rollout_observed(policy, before.as_ref());
        let mark = self.stable.as_ref().map(|(name, _)| name.clone());
        let (state, mut effects) =
            rollout::step(policy, before, mark.as_ref(), &observed, self.now);
        self.tell_of_what_is_forgotten(&state);
        self.notices.append(&mut effects.notices);
        let promote = effects.stable.as_ref() == Some(&self.wanted) && mark != effects.stable;
        let astray = effects.stable.clone().filter(|stable| {
            let is_promoted = matches!(state.phase, phases::Phase::Promoting { .. });
            !promote && !is_promoted && mark.as_ref().is_some_and(|mark| mark != stable)
        });
        let traffic = shares(&state);
        let serve = traffic.iter().max_by_key(|share| share.weight);
        let serve = serve.map_or_else(|| self.wanted.clone(), |share| share.revision.clone());
        let run = effects
            .floors
            .iter()
            .map(|(name, pods)| (name.clone(), i32::try_from(*pods).unwrap_or(i32::MAX)));
        Decision {
            serve,
            traffic,
            run: run.collect(),
            promote,
            astray,
            phase: self.phase(policy, &state, &effects),
            requeue: effects.requeue,
            rollout: Some(RolloutStatus {
                shadow: self.shadow(&effects),
                ..describe(policy, &state, &effects)
            }),
            outside: None,
        }
    }

    /// What the status remembers of a rollout. One whose stable revision has neither record nor pods is another
    /// service's (restored from a backup, say): it would be waited for without end.
    fn remembered(&self) -> Option<State> {
        let rollout = self.observed.service.status.as_ref()?.rollout.as_ref()?;
        let state = super::unreadable::state(rollout)?;
        let is_ours = state.stable.as_ref().is_none_or(|stable| {
            self.has_record(stable) || self.observed.deployment(stable).is_some()
        });
        is_ours.then_some(state)
    }

    fn rollout_observed(&self, policy: &Policy, before: Option<&State>) -> rollout::Observed {
        let mark = self.stable.as_ref().map(|(name, _)| name);
        let stable = before.and_then(|state| state.stable.as_ref()).or(mark);
        let candidate = before.and_then(|state| state.candidate.as_ref());
        let candidate = candidate.unwrap_or(&self.wanted);
        let edges = before.map(State::edges).unwrap_or_default();
        // What comes through Gateways nobody counts: no test is made, and nothing is waited for but the routes.
        let by_gateways = Routers {
            complete: true,
            followed: self.followed_by_gateways(before),
            ..Routers::default()
        };
        let routers = match self.splitter {
            Splitter::Gateways => &by_gateways,
            Splitter::Routers | Splitter::Nobody => &self.observed.routers,
        };
        let slow = readings::slow(routers, stable);
        let slow_runs = readings::slow_runs(routers, stable);
        let buckets = self.buckets(policy, &edges, slow, slow_runs);
        let annotations = self.observed.service.metadata.annotations.as_ref();
        let replicas = u32::try_from(self.observed.service.spec.replicas()).unwrap_or(0);
        rollout::Observed {
            wanted: self.wanted.clone(),
            health: self.health.clone(),
            load: Load {
                planned: None,
                replicas: if policy.suspended { 0 } else { replicas },
            },
            per_replica: BTreeMap::new(),
            readings: readings::readings(routers, candidate, stable, &edges),
            complete: routers.complete,
            followed: routers.followed,
            recent: readings::recent(routers, stable, &buckets),
            slow,
            slow_runs,
            drift: readings::drift(routers, candidate, stable),
            // Of what the spec asks for: a candidate that it does not ask for any more leaves in this look.
            signature: stable.map_or(Signature::Unknown, |stable| {
                let stops = policy.strategy == Strategy::Recreate;
                self.signature(stable, &self.wanted, stops)
            }),
            golden: self.golden(),
            command: annotations.and_then(|all| all.get(names::COMMAND).cloned()),
        }
    }

    /// What is slow, as far as it is settled, and else as it would be settled now.
    fn buckets(
        &self,
        policy: &Policy,
        edges: &BTreeMap<Signal, Edge>,
        slow: Option<u16>,
        slow_runs: Option<u16>,
    ) -> BTreeMap<Signal, u16> {
        let now = [
            (Signal::SlowerThanStable, slow),
            (Signal::ServiceTime, slow_runs),
            (Signal::SlowerThanSlo, policy.analysis.max_latency),
        ];
        let bucket = |(signal, now): (Signal, Option<u16>)| {
            let settled = edges.get(&signal).map(|edge| edge.bucket);
            Some((signal, settled.or(now)?))
        };
        now.into_iter().filter_map(bucket).collect()
    }

    /// What the routers copy.
    fn shadow(&self, effects: &Effects) -> Option<ShadowStatus> {
        let mirror = effects.mirror.as_ref()?;
        let rollout = self.observed.service.spec.rollout.as_ref()?;
        let compare = &rollout.shadow.as_ref()?.compare;
        Some(ShadowStatus {
            revision: mirror.to.to_string(),
            percent: mirror.percent.into(),
            compare: compare.into(),
        })
    }

    fn golden(&self) -> Golden {
        let rollout = self.observed.service.spec.rollout.as_ref();
        if rollout.is_none_or(|rollout| rollout.validation.is_none()) {
            return Golden::None;
        }
        match &self.observed.golden {
            Some((revision, golden)) if *revision == self.wanted => golden.clone(),
            _ => Golden::Running,
        }
    }

    /// What a revision's pods said of themselves, now or earlier.
    fn about(&self, name: &RevisionName) -> Option<About> {
        let now = self.report(name).map(|report| report.about.clone());
        now.or_else(|| {
            let status = self.observed.service.status.as_ref()?;
            let mut known = status.revisions.iter();
            known
                .find(|revision| revision.name == name.as_str())
                .map(crate::status::about)
        })
        .filter(|about| about.provider.is_some())
    }

    /// Both signatures, compared. `stops`: the stable revision ends before the candidate starts.
    fn signature(&self, stable: &RevisionName, candidate: &RevisionName, stops: bool) -> Signature {
        let (old, new) = match (self.about(stable), self.about(candidate)) {
            (Some(old), Some(new)) => (old, new),
            // Its pods have ended before one was asked, and are never asked again: while nothing serves nobody waits for
            // what would only be told.
            (None, Some(_)) if stops && self.has_no_pods(stable) => return Signature::Same,
            _ => return Signature::Unknown,
        };
        match (old.model, new.model) {
            (Some(old), Some(new)) => signature::compare(&old, &new),
            // A pod that serves several models names none of them here: there is nothing to compare.
            _ => Signature::Same,
        }
    }

    fn has_no_pods(&self, name: &RevisionName) -> bool {
        self.health.get(name).is_none_or(|health| health.pods == 0)
    }

    /// What is going on, in the words of the conditions.
    fn phase(&self, policy: &Policy, state: &State, effects: &Effects) -> Phase {
        let absent = Health::default();
        let wanted = self.health.get(&self.wanted).unwrap_or(&absent);
        if policy.suspended {
            return Phase::Suspended;
        }
        match (&state.phase, &state.stable) {
            (phases::Phase::Failed { why, .. }, Some(_)) => Phase::RolloutFailed(Cause {
                reason: why.reason.clone(),
                message: why.message.clone(),
                exit_code: None,
                class: Class::Terminal,
            }),
            (phases::Phase::Stable, Some(stable)) if *stable == self.wanted => {
                Phase::steady(wanted, self.observed.service.spec.replicas())
            }
            (_, None) => Phase::starting(wanted),
            (phases::Phase::Stopping, Some(stable)) => Phase::Stopping(stable.clone()),
            _ => Phase::Moving {
                tell: effects.tell.clone(),
                cause: wanted.cause.clone().filter(|_| wanted.ready == 0),
            },
        }
    }
}

/// The shares, the stable revision's first.
fn shares(state: &State) -> Vec<Share> {
    let share = |(name, weight): (&RevisionName, &rollout::Weight)| Share {
        revision: name.clone(),
        weight: weight.percent(),
    };
    let mut shares: Vec<Share> = state.traffic.iter().map(share).collect();
    shares.sort_by_key(|share| Some(&share.revision) != state.stable.as_ref());
    shares
}

/// `status.rollout`.
fn describe(policy: &Policy, state: &State, effects: &Effects) -> RolloutStatus {
    use phases::Phase;
    let (phase, stage) = match &state.phase {
        Phase::Stable => (RolloutPhase::Stable, None),
        Phase::Stopping => (RolloutPhase::Stopping, None),
        Phase::Preparing => (RolloutPhase::Preparing, None),
        Phase::Shadowing => (RolloutPhase::Shadowing, None),
        Phase::Step { stage, .. } => (RolloutPhase::Step, Some(format!("{stage:?}"))),
        Phase::AwaitingApproval => (RolloutPhase::AwaitingApproval, None),
        Phase::Promoting { stage } => (RolloutPhase::Promoting, Some(format!("{stage:?}"))),
        Phase::Aborting { stage, .. } => (RolloutPhase::Aborting, Some(format!("{stage:?}"))),
        Phase::Failed { .. } => (RolloutPhase::Failed, None),
    };
    let name = |revision: &RevisionName| revision.to_string();
    let (failed, why) = match &state.phase {
        Phase::Failed { revision, why } => (Some(revision), Some(why)),
        Phase::Aborting {
            then: phases::Then::Fail(why),
            ..
        } => (None, Some(why)),
        _ => (None, None),
    };
    let (step, steps) = match (&state.phase, &policy.strategy) {
        (Phase::Step { index, .. }, Strategy::Canary(Split::Steps(steps))) => {
            (Some(index + 1), Some(steps.len()))
        }
        _ => (None, None),
    };
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let is_moving = !matches!(state.phase, Phase::Stable | Phase::Failed { .. });
    RolloutStatus {
        phase,
        stage,
        since: Some(Time(whole_seconds(state.timer.since))),
        stable: state.stable.as_ref().map(name),
        candidate: state.candidate.as_ref().or(failed).map(name),
        step: step.map(count),
        steps: steps.map(count),
        weight: is_moving.then(|| i32::from(state.weight.percent())),
        paused: match (state.pause, policy.paused && is_moving) {
            (Some(Pause::Commanded), _) => Some("Commanded".into()),
            (_, true) => Some("Spec".into()),
            (Some(Pause::Inconclusive), false) => Some("Inconclusive".into()),
            (None, false) => None,
        },
        reason: why.map(|why| why.reason.clone()),
        message: Some(effects.tell.message.clone()),
        generation: i64::try_from(state.generation).ok(),
        kept: state.kept.as_ref().map(|kept| name(&kept.revision)),
        validation: state.validation.clone(),
        shadow: None,
        evidence: state
            .evidence
            .as_ref()
            .filter(|_| policy.counts)
            .map(|evidence| describe_evidence(policy, evidence)),
        state: serde_json::to_string(state).ok(),
    }
}

fn describe_evidence(policy: &Policy, evidence: &Evidence) -> RolloutEvidence {
    let confidence = policy.analysis.confidence;
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let count = |count: Count| CountStatus {
        requests: whole(count.requests),
        bad: whole(count.bad),
    };
    let signals = evidence.tests().iter().map(|(signal, test)| SignalStatus {
        signal: word(*signal).into(),
        e_value: rounded(test.e_value()),
        candidate: count(test.total().candidate),
        stable: count(test.total().stable),
        frozen_rate: test.frozen().map(rounded),
    });
    RolloutEvidence {
        summary: evidence.why(confidence),
        requests: whole(evidence.requests_in_step()),
        needed: whole(policy.analysis.min_requests),
        e_value: rounded(evidence.e_value()),
        limit: rounded(limit(confidence)),
        examples: None,
        drift: evidence.drift().map(describe_drift),
        signals: signals.collect(),
    }
}

fn describe_drift(drift: &Drift) -> DriftStatus {
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let moved = drift.classes.iter().map(|moved| MovedStatus {
        class: moved.class.clone(),
        stable: whole(moved.stable),
        candidate: whole(moved.candidate),
    });
    DriftStatus {
        distance: drift.distance,
        pairs: whole(drift.pairs),
        notable: drift.notable,
        classes: moved.collect(),
    }
}

const fn word(signal: Signal) -> &'static str {
    match signal {
        Signal::Errors => "errors",
        Signal::SlowerThanSlo => "slowerThanSlo",
        Signal::SlowerThanStable => "slowerThanStable",
        Signal::ServiceTime => "serviceTime",
        Signal::Disagreement => "disagreement",
    }
}

/// To four places, and finite.
fn rounded(value: f64) -> f64 {
    (value.min(MOST) * 1e4).round() / 1e4
}
