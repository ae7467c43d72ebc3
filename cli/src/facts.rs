//! What is read of a service's status in more than one place.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::ResourceExt as _;
use ortolan_crds::{InferenceService, RolloutPhase, RolloutStatus, Traffic, names};

/// A condition.
pub fn condition<'a>(service: &'a InferenceService, kind: &str) -> Option<&'a Condition> {
    let conditions = &service.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether a condition is True.
pub fn is_true(service: &InferenceService, kind: &str) -> bool {
    condition(service, kind).is_some_and(|condition| condition.status == "True")
}

/// Whether the status is of the spec as it is now.
pub fn is_observed(service: &InferenceService) -> bool {
    let observed = service
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    observed.is_some() && observed == service.metadata.generation
}

/// The rollout, where there are routers.
pub fn rollout(service: &InferenceService) -> Option<&RolloutStatus> {
    service.status.as_ref()?.rollout.as_ref()
}

/// The shares, none of them nothing, the largest first.
pub fn traffic(service: &InferenceService) -> Vec<&Traffic> {
    let all = service.status.iter().flat_map(|status| &status.traffic);
    let mut some: Vec<&Traffic> = all.filter(|share| share.weight > 0).collect();
    some.sort_by(|a, b| b.weight.cmp(&a.weight).then(a.revision.cmp(&b.revision)));
    some
}

/// Whether a candidate is under way: neither at rest, nor failed, nor on its way back.
pub const fn is_under_way(phase: RolloutPhase) -> bool {
    !matches!(
        phase,
        RolloutPhase::Stable | RolloutPhase::Aborting | RolloutPhase::Failed
    )
}

/// The phase in a few words: `Step 2/3 Soak`, `Step 2/3 paused`, `Promoting Settle`, `Stable`.
pub fn phase(rollout: &RolloutStatus) -> String {
    let mut words = format!("{:?}", rollout.phase);
    if rollout.phase == RolloutPhase::Step {
        match (rollout.step, rollout.steps) {
            (Some(step), Some(steps)) => words = format!("Step {step}/{steps}"),
            (Some(step), None) => words = format!("Step {step}"),
            (None, _) => {}
        }
    }
    match (&rollout.paused, &rollout.stage) {
        (Some(_), _) => words.push_str(" paused"),
        (None, Some(stage)) => {
            words.push(' ');
            words.push_str(stage);
        }
        (None, None) => {}
    }
    words
}

/// Why a rollout stands still, in words.
pub fn pause(reason: &str) -> &str {
    match reason {
        "Commanded" => "by command",
        "Inconclusive" => "too few requests to judge by",
        "Spec" => "spec.rollout.paused is true",
        other => other,
    }
}

/// The revision's part of the name, or all of it: `1a2b3c4d` of `cats-1a2b3c4d`.
pub fn short<'a>(service: &str, revision: &'a str) -> &'a str {
    let rest = revision.strip_prefix(service);
    rest.and_then(|rest| rest.strip_prefix('-'))
        .unwrap_or(revision)
}

/// A pod as people ask after it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: String,
    /// Whether it takes requests.
    pub ready: bool,
    /// `Running`, `Terminating`, or why its container waits.
    pub state: String,
    /// How often the server started anew.
    pub restarts: i32,
    /// Where it runs.
    pub node: String,
    /// Since when it is there.
    pub since: Option<Timestamp>,
}

impl PodFacts {
    /// Reads a pod.
    pub fn of(pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let containers = status.container_statuses.unwrap_or_default();
        let server = containers
            .iter()
            .find(|container| container.name == names::CONTAINER);
        let waits =
            server.and_then(|server| server.state.as_ref()?.waiting.as_ref()?.reason.clone());
        let leaves = pod.metadata.deletion_timestamp.is_some();
        let state = match leaves {
            true => "Terminating".into(),
            false => waits.or(status.phase).unwrap_or_else(|| "Unknown".into()),
        };
        Self {
            name: pod.name_any(),
            revision: pod
                .labels()
                .get(names::REVISION)
                .cloned()
                .unwrap_or_default(),
            ready: !leaves
                && conditions
                    .iter()
                    .any(|c| c.type_ == "Ready" && c.status == "True"),
            state,
            restarts: server.map_or(0, |server| server.restart_count),
            node: pod
                .spec
                .as_ref()
                .and_then(|spec| spec.node_name.clone())
                .unwrap_or_default(),
            since: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_phase_is_said_in_a_few_words() {
        for (rollout, words) in [
            (json!({"phase": "Stable"}), "Stable"),
            (
                json!({"phase": "Step", "stage": "Soak", "step": 2, "steps": 3}),
                "Step 2/3 Soak",
            ),
            (
                json!({"phase": "Step", "stage": "Soak", "step": 2}),
                "Step 2 Soak",
            ),
            (
                json!({"phase": "Step", "stage": "Soak", "step": 2, "steps": 3, "paused": "Spec"}),
                "Step 2/3 paused",
            ),
            (
                json!({"phase": "Promoting", "stage": "Settle"}),
                "Promoting Settle",
            ),
            (json!({"phase": "AwaitingApproval"}), "AwaitingApproval"),
        ] {
            let read: RolloutStatus = serde_json::from_value(rollout).expect("a rollout");
            assert_eq!(phase(&read), words);
        }
    }

    #[test]
    fn a_revisions_name_is_cut_only_behind_its_services() {
        for (service, revision, says) in [
            ("cats", "cats-1a2b3c4d", "1a2b3c4d"),
            ("cat", "cats-1a2b3c4d", "cats-1a2b3c4d"),
            ("cats", "cats", "cats"),
        ] {
            assert_eq!(short(service, revision), says);
        }
    }

    #[test]
    fn a_pod_tells_why_it_is_not_ready() {
        let pod = |status: serde_json::Value, meta: serde_json::Value| {
            let pod = json!({"metadata": meta, "status": status});
            PodFacts::of(&serde_json::from_value(pod).expect("a pod"))
        };
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let fine = pod(
            json!({"phase": "Running", "conditions": ready}),
            json!({"name": "a"}),
        );
        assert_eq!((fine.ready, fine.state.as_str()), (true, "Running"));
        let leaving = pod(
            json!({"phase": "Running", "conditions": ready}),
            json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
        );
        assert_eq!(
            (leaving.ready, leaving.state.as_str()),
            (false, "Terminating")
        );
        let server = json!([{"name": "server", "image": "i", "imageID": "", "ready": false, "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
        let crashing = pod(
            json!({"phase": "Running", "containerStatuses": server}),
            json!({"name": "a"}),
        );
        assert_eq!(
            (crashing.restarts, crashing.state.as_str()),
            (4, "CrashLoopBackOff")
        );
    }
}
