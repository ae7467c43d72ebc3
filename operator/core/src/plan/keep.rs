//! What is done for a service that cannot be worked on: a spec that cannot be built, a name that somebody else has.
//!
//! The revision that serves is looked after all the same: what was edited or deleted of it comes back, and it has as many
//! pods as the spec says, none when suspended. Nothing is made for the spec that is refused, nobody is promoted, nothing is
//! removed; another revision's pods stay as they are. Invariant: no write goes to an object of somebody else's.

use jiff::Timestamp;
use ortolan_crds::Traffic;

use super::{Plan, Planner, refuse, revisions, stable, telling};
use crate::{
    observed::{Foreign, Observed},
    revision::RevisionName,
    status,
    step::{Decision, Share},
    validate::Defaults,
};

/// The plan; `foreign` is an object that no watch shows, since it lacks our labels.
#[must_use]
pub fn keep(
    observed: &Observed,
    defaults: &Defaults,
    foreign: Option<&Foreign>,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Plan {
    let refused = || refuse(observed, reason, message, now);
    let Ok(revisions) = revisions(observed) else {
        return refused();
    };
    let Some((stable, _)) = stable(observed, &revisions, now) else {
        return refused();
    };
    let mut planner = Planner::new(observed, defaults, revisions, stable.clone(), now);
    planner.taken = taken(observed, foreign);
    let mut decision = planner.decide();
    stand_still(observed, &mut decision);
    decision.run.retain(|name, _| *name == stable);
    planner.record_digests();
    for (name, replicas) in &decision.run {
        planner.deploy(name, *replicas);
    }
    if observed.service.spec.suspended() {
        planner.stop_others();
    }
    if planner.lost_mark() && planner.has_record(&stable) {
        planner.mark();
    }
    planner.serve(&decision.serve);
    let refusal = status::Refusal { reason, message };
    let status = status::kept(
        observed,
        &decision,
        &stable,
        &planner.health,
        &planner.facts(),
        &refusal,
        now,
    );
    let mut notices = planner.notices;
    notices.extend(telling::told(observed, &status, reason, message));
    Plan {
        writes: planner.writes,
        status: Some(status),
        notices,
        requeue: decision.requeue,
        ..Plan::default()
    }
}

/// A rollout under way stays where it is: its shares, and what is remembered of it.
fn stand_still(observed: &Observed, decision: &mut Decision) {
    let Some(status) = &observed.service.status else {
        return;
    };
    decision.rollout.clone_from(&status.rollout);
    if status.rollout.is_some() && !status.traffic.is_empty() {
        let share = |traffic: &Traffic| Share {
            revision: RevisionName::new(traffic.revision.clone()),
            weight: u8::try_from(traffic.weight).unwrap_or(0),
        };
        decision.traffic = status.traffic.iter().map(share).collect();
    }
}

impl Planner<'_> {
    pub(super) fn has_record(&self, name: &RevisionName) -> bool {
        self.revisions.iter().any(|r| r.name == *name)
    }

    /// A candidate that was left alone does not outlive a suspension.
    fn stop_others(&mut self) {
        let others: Vec<RevisionName> = self
            .health
            .iter()
            .filter(|(name, health)| health.deployed && **name != self.wanted)
            .map(|(name, _)| name.clone())
            .collect();
        for name in others {
            self.scale(&name, 0);
        }
    }
}

/// Objects under our labels that are not ours, and the one that was met without them.
fn taken(observed: &Observed, foreign: Option<&Foreign>) -> Vec<Foreign> {
    let mut taken: Vec<Foreign> = foreign.into_iter().cloned().collect();
    taken.extend(observed.foreign.clone());
    let mut add =
        |kind: &'static str, meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            if !observed.owns(meta) {
                taken.push(Foreign {
                    kind,
                    name: meta.name.clone().unwrap_or_default(),
                });
            }
        };
    observed
        .services
        .iter()
        .for_each(|o| add("Service", &o.metadata));
    observed
        .deployments
        .iter()
        .for_each(|o| add("Deployment", &o.metadata));
    observed
        .budgets
        .iter()
        .for_each(|o| add("PodDisruptionBudget", &o.metadata));
    observed
        .config_maps
        .iter()
        .for_each(|o| add("ConfigMap", &o.metadata));
    taken
}
