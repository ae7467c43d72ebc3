//! The status: conditions by one table, and what each revision is doing.
//!
//! | state | Ready | Available | Progressing | Stalled |
//! |---|---|---|---|---|
//! | first start | False `Starting`, or the cause | False | True | – |
//! | the spec serves | True `Serving` | True | False | – |
//! | fewer pods than wanted | False `PodsNotReady`, or the cause | some pod is ready | True | – |
//! | rolling | False `RollingOut`, or the cause | some pod is ready | True | – |
//! | paused, or waits for `promote` | False `Paused` / `AwaitingApproval` | some pod is ready | False | – |
//! | `Recreate` stops the old revision | False `Recreating` | some pod is ready | True | – |
//! | the candidate failed | False `RolloutFailed` | some pod is ready | False | True |
//! | failed for good | False, the cause | some pod is ready | False | True |
//! | `routing.gateway`, and a Gateway has not taken the route | False `RoutePending`, `GatewayAPIMissing` or the Gateway's reason | some pod is ready | True | – |
//! | suspended | True `Suspended` | False | False | – |
//! | a rollout of another version, which cannot be read | False `UnreadableRollout` | some pod is ready | False | True |
//! | invalid, refused, or a name that is taken | False, the cause | some pod is ready; as before when no revision serves | False | True |
//!
//! With `routing.gateway` there is one more condition, `Routed`: whether every Gateway has taken every route as it is.

mod outside;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use ortolan_crds::{
    InferenceServiceStatus, LastFailure, RevisionPhase, RevisionStatus, RolloutStatus, Traffic,
    names,
};

use crate::{
    failure::Cause,
    health::Health,
    observed::{About, Observed},
    revision::RevisionName,
    rollout::State,
    step::{Decision, Phase, Share},
};

use self::outside::Routed;

/// What is true of one condition.
struct Verdict {
    ready: (bool, String, String),
    available: Available,
    progressing: bool,
    stalled: bool,
}

enum Available {
    /// Some pod of the revision that gets the requests is ready.
    ByPods,
    No,
    AsBefore,
}

/// What the status tells of a revision beside its health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The digest that the user gave or the first pod reported.
    pub digest: Option<String>,
    /// The server's image.
    pub image: Option<String>,
    /// What a pod said of itself, if one was asked in this reconcile.
    pub about: Option<About>,
}

/// The status of a service for which a decision was made.
#[must_use]
pub fn decided(
    observed: &Observed,
    decision: &Decision,
    wanted: &RevisionName,
    health: &BTreeMap<RevisionName, Health>,
    facts: &BTreeMap<RevisionName, Facts>,
    now: Timestamp,
) -> InferenceServiceStatus {
    let ready = |name: &RevisionName| health.get(name).map_or(0, |health| health.ready);
    let replicas = decision.run.get(wanted).copied().unwrap_or_default();
    let serving = ready(&decision.serve);
    let verdict = verdict(decision, wanted, replicas, ready(wanted), serving);
    let verdict = verdict.seen_from_outside(decision.outside.as_ref());
    judged(observed, decision, wanted, health, facts, verdict, now)
}

/// Why a service cannot be worked on.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// The cause in one word.
    pub reason: &'a str,
    /// The cause in a sentence.
    pub message: &'a str,
}

/// The status of a service that cannot be worked on, and whose revision `stable` is looked after: what that one is doing, and
/// other revisions that have pods as they were.
#[must_use]
pub fn kept(
    observed: &Observed,
    decision: &Decision,
    stable: &RevisionName,
    health: &BTreeMap<RevisionName, Health>,
    facts: &BTreeMap<RevisionName, Facts>,
    refusal: &Refusal<'_>,
    now: Timestamp,
) -> InferenceServiceStatus {
    let verdict = refusal.verdict(Available::ByPods);
    let mut status = judged(observed, decision, stable, health, facts, verdict, now);
    let before = observed.service.status.iter().flat_map(|s| &s.revisions);
    for revision in before {
        let known = status.revisions.iter().any(|r| r.name == revision.name);
        let alive = health.get(&RevisionName::new(revision.name.clone()));
        if let Some(alive) = alive.filter(|alive| !known && alive.deployed) {
            let revision = RevisionStatus {
                ready_replicas: alive.ready,
                ..revision.clone()
            };
            status.revisions.push(revision);
            status.replicas = status.replicas.map(|n| n + alive.pods);
        }
    }
    status.revisions.sort_by(|a, b| a.name.cmp(&b.name));
    status
}

fn traffic(share: &Share) -> Traffic {
    Traffic {
        revision: share.revision.to_string(),
        weight: i32::from(share.weight),
    }
}

fn judged(
    observed: &Observed,
    decision: &Decision,
    wanted: &RevisionName,
    health: &BTreeMap<RevisionName, Health>,
    facts: &BTreeMap<RevisionName, Facts>,
    verdict: Verdict,
    now: Timestamp,
) -> InferenceServiceStatus {
    let absent = Health::default();
    let of = |name: &RevisionName| health.get(name).unwrap_or(&absent);
    let serving = of(&decision.serve);
    let before = observed.service.status.clone().unwrap_or_default();
    let (url, addresses) = outside::reached(observed, decision.outside.as_ref(), &before);
    let routed = outside::routed(observed, decision.outside.as_ref(), &before);
    InferenceServiceStatus {
        observed_generation: observed.service.metadata.generation,
        conditions: conditions(observed, &before, verdict, routed, serving.ready > 0, now),
        url: Some(url),
        addresses: Some(addresses),
        traffic: decision.traffic.iter().map(traffic).collect(),
        rollout: decision.rollout.clone(),
        revisions: revisions(&before, decision, wanted, health, facts),
        replicas: Some(
            listed(decision, wanted)
                .into_iter()
                .map(|r| of(r).pods)
                .sum(),
        ),
        ready_replicas: Some(serving.ready),
        selector: selector(observed),
    }
}

/// The labels of all its pods, where somebody scales by what they use.
fn selector(observed: &Observed) -> Option<String> {
    observed.service.spec.scaler()?;
    Some(format!("{}={}", names::SERVICE, observed.name()))
}

/// Whether `after` says something that people or tools act on, and not only other numbers: another verdict, reason
/// or sentence of a condition, another generation, other traffic, a revision or a phase of one.
#[must_use]
pub fn is_news(before: Option<&InferenceServiceStatus>, after: &InferenceServiceStatus) -> bool {
    let Some(before) = before else { return true };
    let verdicts = |status: &InferenceServiceStatus| -> Vec<_> {
        let of = |c: &Condition| {
            let words = c.message.replace(|c: char| c.is_ascii_digit(), "");
            (c.type_.clone(), c.status.clone(), c.reason.clone(), words)
        };
        status.conditions.iter().map(of).collect()
    };
    let uncounted = |status: &InferenceServiceStatus| InferenceServiceStatus {
        conditions: Vec::new(),
        replicas: None,
        ready_replicas: None,
        rollout: status.rollout.as_ref().map(without_numbers),
        revisions: status
            .revisions
            .iter()
            .map(|revision| RevisionStatus {
                replicas: 0,
                ready_replicas: 0,
                ..revision.clone()
            })
            .collect(),
        ..status.clone()
    };
    verdicts(before) != verdicts(after) || uncounted(before) != uncounted(after)
}

/// A rollout but for its evidence: what was counted changes all the time.
fn without_numbers(rollout: &RolloutStatus) -> RolloutStatus {
    let state = rollout.state.as_deref();
    let state = state.and_then(|text| serde_json::from_str::<State>(text).ok());
    let state = state.map(|state| State {
        evidence: None,
        ..state
    });
    RolloutStatus {
        evidence: None,
        message: None,
        state: state.and_then(|state| serde_json::to_string(&state).ok()),
        ..rollout.clone()
    }
}

/// The status of a service that cannot be worked on: everything as before, but for the conditions.
#[must_use]
pub fn refused(
    observed: &Observed,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> InferenceServiceStatus {
    let before = observed.service.status.clone().unwrap_or_default();
    let verdict = Refusal { reason, message }.verdict(Available::AsBefore);
    let routed = outside::routed(observed, None, &before);
    let conditions = conditions(observed, &before, verdict, routed, false, now);
    InferenceServiceStatus {
        observed_generation: observed.service.metadata.generation,
        conditions,
        ..before
    }
}

impl Refusal<'_> {
    fn verdict(&self, available: Available) -> Verdict {
        Verdict {
            ready: (false, self.reason.into(), self.message.into()),
            available,
            progressing: false,
            stalled: true,
        }
    }
}

fn verdict(
    decision: &Decision,
    wanted: &RevisionName,
    replicas: i32,
    ready: i32,
    serving: i32,
) -> Verdict {
    let by_pods = |ready: bool, reason: &str, message: String, progressing, stalled| Verdict {
        ready: (ready, reason.into(), message),
        available: Available::ByPods,
        progressing,
        stalled,
    };
    let of_cause = |cause: &Cause, tail: String| {
        by_pods(
            false,
            &cause.reason,
            format!("{}{tail}", cause.message),
            true,
            false,
        )
    };
    let counted = format!("{ready} of {replicas} {}", pods(replicas));
    let serve = &decision.serve;
    let meanwhile = if serving > 0 && serve != wanted {
        format!("; revision {serve} serves")
    } else {
        String::new()
    };
    match &decision.phase {
        Phase::Suspended => Verdict {
            ready: (
                true,
                "Suspended".into(),
                "suspended: no pods run, nothing is deleted".into(),
            ),
            available: Available::No,
            progressing: false,
            stalled: false,
        },
        Phase::Serving => {
            let message = format!(
                "revision {wanted} serves with {replicas} {}",
                pods(replicas)
            );
            by_pods(true, "Serving", message, false, false)
        }
        Phase::Starting(None) => {
            let message = format!("revision {wanted} starts: {counted} ready");
            by_pods(false, "Starting", message, true, false)
        }
        Phase::Recovering(None) => {
            let message = format!("revision {wanted} serves with {counted} ready");
            by_pods(false, "PodsNotReady", message, true, false)
        }
        Phase::RollingOut(None) => {
            let message = format!("revision {wanted} starts: {counted} ready{meanwhile}");
            by_pods(false, "RollingOut", message, true, false)
        }
        Phase::Moving { tell, cause: None } => {
            let is_held = matches!(tell.reason, "Paused" | "AwaitingApproval");
            by_pods(false, tell.reason, tell.message.clone(), !is_held, false)
        }
        Phase::Starting(Some(cause))
        | Phase::RollingOut(Some(cause))
        | Phase::Moving {
            cause: Some(cause), ..
        } => of_cause(cause, meanwhile),
        Phase::Recovering(Some(cause)) => of_cause(cause, format!("; {counted} ready")),
        Phase::StartFailed(cause) => {
            by_pods(false, &cause.reason, cause.message.clone(), false, true)
        }
        Phase::Broken(cause) => by_pods(
            false,
            &cause.reason,
            format!("{}; {counted} ready", cause.message),
            false,
            true,
        ),
        Phase::RolloutFailed(cause) => {
            let message = format!(
                "revision {wanted} failed with {}: {}{meanwhile}",
                cause.reason, cause.message
            );
            by_pods(false, "RolloutFailed", message, false, true)
        }
        Phase::Stopping(old) => {
            let message =
                format!("strategy Recreate: revision {old} stops before revision {wanted} starts");
            by_pods(false, "Recreating", message, true, false)
        }
    }
}

/// `pod` or `pods`.
#[must_use]
pub const fn pods(n: i32) -> &'static str {
    if n == 1 { "pod" } else { "pods" }
}

fn conditions(
    observed: &Observed,
    before: &InferenceServiceStatus,
    verdict: Verdict,
    routed: Option<Routed>,
    some_pod_ready: bool,
    now: Timestamp,
) -> Vec<Condition> {
    let (ready, reason, message) = verdict.ready;
    let was_available = before
        .conditions
        .iter()
        .any(|c| c.type_ == "Available" && c.status == "True");
    let available = match verdict.available {
        Available::ByPods => some_pod_ready,
        Available::No => false,
        Available::AsBefore => was_available,
    };
    let available_words = if available {
        ("PodsReady", "requests are answered")
    } else {
        ("NoPodsReady", "no pod answers requests")
    };
    let mut wanted = vec![
        ("Ready", ready, reason.clone(), message.clone()),
        (
            "Available",
            available,
            available_words.0.into(),
            available_words.1.into(),
        ),
        (
            "Progressing",
            verdict.progressing,
            reason.clone(),
            message.clone(),
        ),
    ];
    if verdict.stalled {
        wanted.push(("Stalled", true, reason, message));
    }
    if let Some((routed, reason, message)) = routed {
        wanted.push(("Routed", routed, reason, message));
    }
    wanted
        .into_iter()
        .map(|(kind, status, reason, message)| {
            let status = if status { "True" } else { "False" };
            let since = before
                .conditions
                .iter()
                .find(|c| c.type_ == kind && c.status == status)
                .map_or(Time(whole_seconds(now)), |c| c.last_transition_time.clone());
            Condition {
                type_: kind.into(),
                status: status.into(),
                reason,
                message,
                last_transition_time: since,
                observed_generation: observed.service.metadata.generation,
            }
        })
        .collect()
}

/// Conditions are kept in whole seconds by the API: a fraction would differ from what is read back.
pub(crate) fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn revisions(
    before: &InferenceServiceStatus,
    decision: &Decision,
    wanted: &RevisionName,
    health: &BTreeMap<RevisionName, Health>,
    facts: &BTreeMap<RevisionName, Facts>,
) -> Vec<RevisionStatus> {
    listed(decision, wanted)
        .into_iter()
        .map(|name| {
            let absent = Health::default();
            let health = health.get(name).unwrap_or(&absent);
            let facts = facts.get(name).cloned().unwrap_or_default();
            let replicas = decision.run.get(name).copied().unwrap_or_default();
            let phase = phase(decision, wanted, name, replicas, health);
            let told = health.cause.as_ref().map(|cause| LastFailure {
                reason: cause.reason.clone(),
                message: cause.message.clone(),
                exit_code: cause.exit_code,
            });
            let earlier = before.revisions.iter().find(|r| r.name == name.as_str());
            let last_failure = told
                .or_else(|| earlier.and_then(|r| r.last_failure.clone()))
                .filter(|_| !health.serves(replicas));
            let about = facts
                .about
                .or_else(|| earlier.map(about))
                .unwrap_or_default();
            RevisionStatus {
                name: name.to_string(),
                phase,
                digest: facts.digest,
                image: facts.image,
                replicas,
                ready_replicas: health.ready,
                provider: about.provider,
                model: about.model,
                cold_start: about.cold_start,
                last_failure,
            }
        })
        .collect()
}

/// A pod is asked once for its revision; the status remembers.
#[must_use]
pub fn about(revision: &RevisionStatus) -> About {
    About {
        provider: revision.provider.clone(),
        model: revision.model.clone(),
        cold_start: revision.cold_start.clone(),
    }
}

/// The revisions that are meant to be. Pods that are on their way out are not listed nor counted: their last steps
/// would be a write each.
fn listed<'a>(decision: &'a Decision, wanted: &'a RevisionName) -> BTreeSet<&'a RevisionName> {
    let answers = decision.traffic.iter().map(|share| &share.revision);
    let meant = [wanted, &decision.serve].into_iter().chain(answers);
    decision.run.keys().chain(meant).collect()
}

fn phase(
    decision: &Decision,
    wanted: &RevisionName,
    name: &RevisionName,
    replicas: i32,
    health: &Health,
) -> RevisionPhase {
    // Before its promotion the first revision starts, also when some of its pods are ready: what the
    // status calls serving is taken for stable when the record's mark is lost.
    let first_start = matches!(decision.phase, Phase::Starting(_) | Phase::StartFailed(_));
    let mut answering = decision.traffic.iter().filter(|share| share.weight > 0);
    let answers = *name == decision.serve || answering.any(|share| share.revision == *name);
    if answers && health.ready > 0 && !first_start {
        RevisionPhase::Serving
    } else if health.failed().is_some() {
        RevisionPhase::Failed
    } else if replicas == 0 && health.pods == 0 {
        RevisionPhase::Stopped
    } else if name != wanted && !answers {
        RevisionPhase::Draining
    } else if replicas == 0 {
        RevisionPhase::Stopped
    } else {
        RevisionPhase::Starting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(reason: &str, phase: RevisionPhase, ready: i32) -> InferenceServiceStatus {
        InferenceServiceStatus {
            conditions: vec![Condition {
                type_: "Ready".into(),
                status: "False".into(),
                reason: reason.into(),
                message: format!("{ready} of 3 pods ready"),
                observed_generation: Some(1),
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
            }],
            revisions: vec![RevisionStatus {
                name: "m-1".into(),
                phase,
                replicas: 3,
                ready_replicas: ready,
                ..RevisionStatus::default()
            }],
            ready_replicas: Some(ready),
            ..InferenceServiceStatus::default()
        }
    }

    #[test]
    fn other_numbers_are_no_news_and_another_reason_or_phase_is() {
        use RevisionPhase::{Serving, Starting};
        let before = status("Starting", Starting, 1);
        assert!(!is_news(Some(&before), &status("Starting", Starting, 2)));
        assert!(is_news(None, &before));
        assert!(is_news(
            Some(&before),
            &status("ImagePullBackOff", Starting, 1)
        ));
        assert!(is_news(Some(&before), &status("Starting", Serving, 1)));
        let newer = InferenceServiceStatus {
            observed_generation: Some(2),
            ..before.clone()
        };
        assert!(is_news(Some(&before), &newer));
    }
}
