//! Who gets which share, how many pods that takes, and what is said about it.

use std::{collections::BTreeMap, time::Duration};

use super::{
    capacity::{Load, affordable, needed},
    clock::passed,
    effects::{Effects, Mirror},
    evidence::Against,
    policy::{Split, Strategy, Weight},
    state::{Edge, Phase, Stage},
    step::Turn,
    times,
};
use crate::{notice::Notice, revision::RevisionName};

impl Turn<'_> {
    /// The load, with replicas that serve now or should.
    pub(super) fn load(&self) -> Load {
        let ready = self.ready(self.state.stable.as_ref());
        let load = self.observed.load;
        Load {
            replicas: load.replicas.max(ready),
            ..load
        }
    }

    /// Writes the shares that the routers obey.
    pub(super) fn route(&mut self) {
        let lost = self.ready(self.state.stable.as_ref()) == 0 && !self.asleep();
        self.state.stable_lost = lost.then(|| self.state.stable_lost.unwrap_or(self.now));
        let (stable, candidate) = (self.state.stable.clone(), self.state.candidate.clone());
        let shares: BTreeMap<RevisionName, Weight> = match (stable, candidate) {
            (None, None) => BTreeMap::new(),
            (Some(only), None) | (None, Some(only)) => BTreeMap::from([(only, Weight::ALL)]),
            (Some(stable), Some(candidate)) => {
                let share = self.share(&stable, &candidate);
                let both = [(stable, share.rest()), (candidate, share)];
                both.into_iter()
                    .filter(|(_, w)| *w > Weight::NONE)
                    .collect()
            }
        };
        if shares == self.state.traffic {
            return;
        }
        self.state.traffic = shares;
        self.state.generation += 1;
        self.settle_edges();
        let stable = self.state.stable.as_ref();
        let against = match stable.is_some_and(|name| self.state.traffic.contains_key(name)) {
            true => Against::Stable,
            false => Against::Before(self.observed.recent.clone()),
        };
        let tolerated = self.policy.analysis.tolerated();
        if let Some(evidence) = &mut self.state.evidence {
            let generation = self.state.generation;
            evidence.shift(
                &self.observed.readings,
                generation,
                &against,
                tolerated,
                self.now,
            );
        }
    }

    /// What is slow from this change of the traffic on, where it is not settled yet.
    fn settle_edges(&mut self) {
        if !self.in_progress() {
            return;
        }
        let from = self.state.generation;
        let edge = |bucket: u16| Edge { bucket, from };
        let state = &mut self.state;
        state.edge = state.edge.or(self.observed.slow.map(edge));
        state.run_edge = state.run_edge.or(self.observed.slow_runs.map(edge));
        let slo = self.policy.analysis.max_latency;
        state.slo_edge = state.slo_edge.or(slo.map(edge));
    }

    /// The candidate's share: what it should have, as far as there are pods to take it.
    fn share(&mut self, stable: &RevisionName, candidate: &RevisionName) -> Weight {
        let (wish, routed) = (self.state.weight, self.state.routed());
        let ready = (self.observed.ready(stable), self.observed.ready(candidate));
        let recreates = self.policy.strategy == Strategy::Recreate;
        match ready {
            // Nobody can serve: requests are held where they are.
            (0, 0) => routed,
            (_, 0) => {
                if routed > Weight::NONE && self.in_progress() {
                    let message =
                        format!("No pod of {candidate} is ready; {stable} takes its share");
                    self.notices
                        .push(Notice::warning("CandidateUnavailable", message));
                }
                Weight::NONE
            }
            (0, _) if wish > Weight::NONE || self.stands_in() => {
                if routed < Weight::ALL && !recreates {
                    let message = format!(
                        "No pod of {stable} is ready; {candidate} takes everything, which is no promotion"
                    );
                    self.notices
                        .push(Notice::warning("StableUnavailable", message));
                }
                Weight::ALL
            }
            _ if wish > routed => match self.capacity_for(wish) {
                true => wish,
                false => routed,
            },
            _ if wish < routed && self.in_progress() => {
                let each = self.observed.per_replica.get(stable).copied();
                let rest = affordable(ready.0, &self.load(), each).rest();
                wish.max(rest).min(routed)
            }
            _ => wish,
        }
    }

    /// Whether a candidate that has shown all that is asked before traffic serves in the stable
    /// revision's place: when that failed or has been away for a while, not while it wakes up.
    fn stands_in(&self) -> bool {
        let tried = matches!(
            self.state.phase,
            Phase::Shadowing | Phase::Step { .. } | Phase::AwaitingApproval
        );
        let stable = self.state.stable.as_ref();
        let health = stable.and_then(|name| self.observed.health.get(name));
        let failed = health.is_some_and(|health| health.failed().is_some());
        let since = self.state.stable_lost;
        let away = since.is_some_and(|since| passed(since, self.now) >= times::LOST);
        tried && self.policy.strategy != Strategy::Recreate && (failed || away)
    }

    /// What is to be done.
    pub(super) fn effects(&mut self) -> Effects {
        Effects {
            traffic: self.state.traffic.clone(),
            generation: self.state.generation,
            stable: self.state.stable.clone(),
            floors: self.floors(),
            mirror: self.mirror(),
            tell: self.tell(),
            requeue: self.requeue(),
            notices: std::mem::take(&mut self.notices),
        }
    }

    /// Answers are compared as long as the stable revision has traffic to copy.
    fn mirror(&self) -> Option<Mirror> {
        let to = self.state.candidate.clone()?;
        let percent = self.policy.shadow?;
        let compares = matches!(
            self.state.phase,
            Phase::Shadowing | Phase::Step { .. } | Phase::AwaitingApproval
        );
        let copies = compares && self.state.routed() < Weight::ALL && !self.frozen();
        let copies = copies && self.policy.strategy != Strategy::Recreate;
        copies.then_some(Mirror { to, percent })
    }

    fn requeue(&self) -> Option<Duration> {
        let kept = self.state.kept.as_ref();
        let left = kept.map(|kept| {
            let passed = passed(kept.since, self.now);
            let until = [times::KEEP_PODS, self.policy.rollback_window];
            let next = until.into_iter().filter(|end| *end > passed).min();
            next.map_or(times::LOOK, |end| end - passed)
        });
        match self.state.phase {
            Phase::Stable | Phase::Failed { .. } => left,
            _ => Some(times::LOOK),
        }
    }

    fn floors(&self) -> BTreeMap<RevisionName, u32> {
        let mut floors = BTreeMap::new();
        if let Some(kept) = &self.state.kept {
            let warm = passed(kept.since, self.now) < times::KEEP_PODS && !self.asleep();
            let pods = if warm { kept.replicas } else { 0 };
            floors.insert(kept.revision.clone(), pods);
        }
        if let Phase::Failed { revision, .. } = &self.state.phase {
            floors.insert(revision.clone(), 0);
        }
        if let Some(stable) = &self.state.stable {
            floors.insert(stable.clone(), self.stable_floor(stable));
        }
        if let Some(candidate) = &self.state.candidate {
            floors.insert(candidate.clone(), self.candidate_floor(candidate));
        }
        if self.policy.suspended {
            floors.values_mut().for_each(|pods| *pods = 0);
        }
        floors
    }

    fn stable_floor(&self, stable: &RevisionName) -> u32 {
        let all = self.observed.load.replicas;
        let recreates = self.policy.strategy == Strategy::Recreate;
        let each = self.observed.per_replica.get(stable).copied();
        match &self.state.phase {
            Phase::Stopping => 0,
            Phase::Preparing | Phase::Promoting { .. } if recreates => 0,
            Phase::Aborting { .. } if recreates => {
                let candidate = self.state.candidate.as_ref();
                let gone = candidate.is_none_or(|name| self.observed.pods(name) == 0);
                if gone { all } else { 0 }
            }
            Phase::Stable | Phase::Failed { .. } => all,
            _ if self.asleep() => 0,
            Phase::Aborting { .. } => needed(Weight::ALL, &self.load(), each).max(all),
            // Without knowing what a replica can take, it keeps them all.
            _ if each.is_none() || self.observed.load.planned.is_none() => all,
            _ => needed(self.state.routed().rest(), &self.load(), each),
        }
    }

    fn candidate_floor(&self, candidate: &RevisionName) -> u32 {
        let recreates = self.policy.strategy == Strategy::Recreate;
        let each = self.observed.per_replica.get(candidate).copied();
        let needs = |weight| needed(weight, &self.load(), each).max(1);
        let held = self.state.weight.max(self.state.routed());
        match &self.state.phase {
            Phase::Stable | Phase::Failed { .. } | Phase::Stopping => 0,
            Phase::AwaitingApproval if recreates => 0,
            Phase::Aborting { .. } if recreates => 0,
            // A pod to look at, also of a service that sleeps.
            Phase::Preparing if recreates || self.state.stable.is_none() => needs(Weight::ALL),
            Phase::Preparing => 1,
            _ if self.asleep() => 0,
            Phase::Shadowing => {
                let copies = self.policy.shadow.and_then(Weight::new);
                needs(copies.unwrap_or_default())
            }
            Phase::Step {
                index,
                stage: Stage::PreScale,
            } => needs(held.max(self.target(*index))),
            Phase::Promoting { .. } => needs(Weight::ALL),
            Phase::Step { .. } | Phase::AwaitingApproval | Phase::Aborting { .. } => needs(held),
        }
    }

    fn target(&self, index: usize) -> Weight {
        match &self.policy.strategy {
            Strategy::Canary(Split::Weight(weight)) => *weight,
            Strategy::Canary(Split::Steps(steps)) => {
                steps.get(index).map(|step| step.weight).unwrap_or_default()
            }
            Strategy::BlueGreen | Strategy::Recreate => Weight::ALL,
        }
    }
}
