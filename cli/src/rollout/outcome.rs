//! What has become of a rollout: the one place that says which exit code a pipeline gets.
//!
//! Pure: the service as it was read, and what is waited for. A status of an older spec says nothing.

use kube::ResourceExt as _;
use ortolan_crds::{InferenceService, RolloutPhase, RolloutStatus};
use serde_json::Value;

use crate::facts;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The spec is what serves, with all of its pods.
    Ready,
    /// The revision has all of the traffic.
    Promoted,
    /// The revision has none of it any more.
    TakenBack,
    /// It stands still.
    Paused,
}

/// What has become of it, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing final yet.
    UnderWay(String),
    /// What was waited for.
    Reached(String),
    /// It will not come: the revision failed, or another one came instead.
    Failed(String),
    /// It does not go on by itself.
    Waiting(String),
}

/// Says what has become of it. With a revision, of that one's rollout; else of the spec's.
pub fn outcome(service: &InferenceService, goal: Goal, revision: Option<&str>) -> Outcome {
    let name = service.name_any();
    if service.metadata.deletion_timestamp.is_some() {
        return Outcome::Failed(format!("{name} is being deleted"));
    }
    if !facts::is_observed(service) {
        return Outcome::UnderWay(format!(
            "{name}: the operator has not looked at this spec yet"
        ));
    }
    let rollout = facts::rollout(service);
    match (goal, rollout) {
        (Goal::Ready, _) => ready(service),
        (Goal::Promoted, Some(rollout)) => promoted(service, rollout, revision),
        // Without routers there is one revision at a time.
        (Goal::Promoted, None) if facts::is_true(service, "Ready") && service.spec.suspended() => {
            suspended(&name)
        }
        (Goal::Promoted, None) => ready(service),
        (Goal::TakenBack, Some(rollout)) => taken_back(rollout, revision),
        (Goal::Paused, Some(rollout)) => paused(rollout),
        (Goal::TakenBack | Goal::Paused, None) => {
            Outcome::Failed(format!("{name} has no rollout any more"))
        }
    }
}

fn ready(service: &InferenceService) -> Outcome {
    let Some(ready) = facts::condition(service, "Ready") else {
        return Outcome::UnderWay(format!("{}: nothing is known yet", service.name_any()));
    };
    let text = format!(
        "{}: {}: {}",
        service.name_any(),
        ready.reason,
        ready.message
    );
    match ready.reason.as_str() {
        _ if ready.status == "True" => Outcome::Reached(text),
        _ if facts::is_true(service, "Stalled") => Outcome::Failed(text),
        "Paused" | "AwaitingApproval" => Outcome::Waiting(text),
        _ => Outcome::UnderWay(text),
    }
}

fn promoted(
    service: &InferenceService,
    rollout: &RolloutStatus,
    revision: Option<&str>,
) -> Outcome {
    let name = service.name_any();
    let stable = rollout.stable.as_deref().unwrap_or_default();
    let said = || told(&name, rollout);
    match rollout.phase {
        RolloutPhase::Failed => Outcome::Failed(said()),
        _ if service.spec.suspended() => suspended(&name),
        _ if rollout.paused.is_some() && facts::is_under_way(rollout.phase) => {
            Outcome::Waiting(said())
        }
        RolloutPhase::AwaitingApproval => Outcome::Waiting(said()),
        RolloutPhase::Stable => match revision {
            Some(wanted) if wanted != stable => {
                Outcome::Failed(format!("{name}: {wanted} was left, {stable} serves"))
            }
            // The spec is refused, or the pods fail for good: what serves is not what was asked for.
            _ if facts::is_true(service, "Stalled") => ready(service),
            _ => Outcome::Reached(format!("{name}: {stable} is promoted")),
        },
        _ if facts::is_true(service, "Stalled") => ready(service),
        _ => Outcome::UnderWay(said()),
    }
}

fn taken_back(rollout: &RolloutStatus, revision: Option<&str>) -> Outcome {
    let stable = rollout.stable.as_deref().unwrap_or("no revision");
    let revision = revision.unwrap_or("the candidate");
    match rollout.phase {
        RolloutPhase::Failed => {
            Outcome::Reached(format!("{revision} is taken back, {stable} serves"))
        }
        RolloutPhase::Stable if stable == revision => Outcome::Failed(format!(
            "{revision} was promoted before it could be taken back"
        )),
        RolloutPhase::Stable => Outcome::Reached(format!("{revision} is left, {stable} serves")),
        _ => Outcome::UnderWay(format!("{revision} is being taken back")),
    }
}

fn paused(rollout: &RolloutStatus) -> Outcome {
    let words = facts::phase(rollout);
    match rollout.paused.is_some() {
        true => Outcome::Reached(format!("it stands still at {words}")),
        false if !facts::is_under_way(rollout.phase) => {
            Outcome::Failed(format!("it is over: {words}"))
        }
        false => Outcome::UnderWay(format!("it is at {words}")),
    }
}

fn suspended(name: &str) -> Outcome {
    Outcome::Waiting(format!(
        "{name} is suspended, and nothing is promoted meanwhile: write `spec.suspend: false`"
    ))
}

fn told(name: &str, rollout: &RolloutStatus) -> String {
    let mut text = format!("{name}: {}", facts::phase(rollout));
    if let Some(reason) = &rollout.paused {
        text.push_str(&format!(" ({})", facts::pause(reason)));
    }
    match (&rollout.message, &rollout.candidate, &rollout.reason) {
        (Some(message), _, _) => text.push_str(&format!(": {message}")),
        (None, Some(candidate), Some(reason)) => text.push_str(&format!(": {candidate}, {reason}")),
        (None, Some(candidate), None) => text.push_str(&format!(": {candidate}")),
        (None, None, _) => {}
    }
    text
}

/// Whether the operator has looked at a command: it remembers the last one.
pub fn is_looked_at(service: &InferenceService, command: &str) -> bool {
    let state = facts::rollout(service).and_then(|rollout| rollout.state.as_deref());
    let state = state.and_then(|state| serde_json::from_str::<Value>(state).ok());
    state.is_some_and(|state| state["command"] == *command)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(status: Value) -> InferenceService {
        let object = json!({
            "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
            "metadata": {"name": "cats", "namespace": "demo", "generation": 3},
            "spec": {"model": {"uri": "https://models.example.com/cats.onnx"}},
            "status": status,
        });
        serde_json::from_value(object).expect("a service")
    }

    fn with(conditions: &[(&str, &str, &str)], rollout: Value) -> InferenceService {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status, reason)| {
                json!({
                    "type": kind, "status": status, "reason": reason, "message": "m",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                })
            })
            .collect();
        let mut status = json!({"observedGeneration": 3, "conditions": conditions});
        if !rollout.is_null() {
            status["rollout"] = rollout;
        }
        service(status)
    }

    fn kind(outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::UnderWay(_) => "under way",
            Outcome::Reached(_) => "reached",
            Outcome::Failed(_) => "failed",
            Outcome::Waiting(_) => "waiting",
        }
    }

    #[test]
    fn a_status_of_an_older_spec_says_nothing() {
        let mut old = with(
            &[("Ready", "True", "Serving")],
            json!({"phase": "Stable", "stable": "cats-1"}),
        );
        old.metadata.generation = Some(4);
        let none = service(json!({}));
        for service in [old, none] {
            for goal in [Goal::Ready, Goal::Promoted, Goal::TakenBack, Goal::Paused] {
                assert_eq!(kind(&outcome(&service, goal, None)), "under way");
            }
        }
    }

    #[test]
    fn without_routers_the_conditions_decide() {
        let rolling = ("Ready", "False", "RollingOut");
        for (conditions, is) in [
            (&[("Ready", "True", "Serving")][..], "reached"),
            (&[rolling], "under way"),
            (&[("Ready", "False", "Starting")], "under way"),
            (
                &[
                    ("Ready", "False", "ImagePull"),
                    ("Progressing", "True", "Working"),
                ],
                "under way",
            ),
            (
                &[
                    ("Ready", "False", "RolloutFailed"),
                    ("Stalled", "True", "RolloutFailed"),
                ],
                "failed",
            ),
            (
                &[
                    ("Ready", "False", "InvalidSpec"),
                    ("Stalled", "True", "InvalidSpec"),
                ],
                "failed",
            ),
            (&[("Ready", "False", "Paused")], "waiting"),
            (&[("Ready", "False", "AwaitingApproval")], "waiting"),
            (&[], "under way"),
        ] {
            let service = with(conditions, Value::Null);
            for goal in [Goal::Ready, Goal::Promoted] {
                assert_eq!(kind(&outcome(&service, goal, None)), is, "{conditions:?}");
            }
        }
    }

    #[test]
    fn with_routers_the_phase_decides_what_is_promoted() {
        let ready: &[(&str, &str, &str)] = &[("Ready", "True", "Serving")];
        let rolling: &[(&str, &str, &str)] = &[("Ready", "False", "RollingOut")];
        let short: &[(&str, &str, &str)] = &[("Ready", "False", "PodsNotReady")];
        let refused: &[(&str, &str, &str)] = &[
            ("Ready", "False", "InvalidSpec"),
            ("Stalled", "True", "InvalidSpec"),
        ];
        for (conditions, rollout, is) in [
            (
                ready,
                json!({"phase": "Stable", "stable": "cats-2"}),
                "reached",
            ),
            (
                short,
                json!({"phase": "Stable", "stable": "cats-2"}),
                "reached",
            ),
            (
                refused,
                json!({"phase": "Stable", "stable": "cats-1"}),
                "failed",
            ),
            (
                rolling,
                json!({"phase": "Preparing", "stable": "cats-1", "candidate": "cats-2"}),
                "under way",
            ),
            (
                rolling,
                json!({"phase": "Step", "stage": "Soak", "candidate": "cats-2"}),
                "under way",
            ),
            (
                rolling,
                json!({"phase": "Step", "stage": "Soak", "candidate": "cats-2", "paused": "Commanded"}),
                "waiting",
            ),
            (
                rolling,
                json!({"phase": "Step", "candidate": "cats-2", "paused": "Inconclusive"}),
                "waiting",
            ),
            (
                rolling,
                json!({"phase": "AwaitingApproval", "candidate": "cats-2"}),
                "waiting",
            ),
            (
                rolling,
                json!({"phase": "Promoting", "stage": "Settle", "candidate": "cats-2"}),
                "under way",
            ),
            (
                rolling,
                json!({"phase": "Aborting", "candidate": "cats-2"}),
                "under way",
            ),
            (
                rolling,
                json!({"phase": "Failed", "candidate": "cats-2", "reason": "Aborted"}),
                "failed",
            ),
        ] {
            let service = with(conditions, rollout.clone());
            assert_eq!(
                kind(&outcome(&service, Goal::Promoted, None)),
                is,
                "{rollout}"
            );
        }
    }

    #[test]
    fn a_revision_that_was_left_for_another_one_failed() {
        let service = with(
            &[("Ready", "True", "Serving")],
            json!({"phase": "Stable", "stable": "cats-3"}),
        );
        assert_eq!(
            kind(&outcome(&service, Goal::Promoted, Some("cats-3"))),
            "reached"
        );
        assert_eq!(
            kind(&outcome(&service, Goal::Promoted, Some("cats-2"))),
            "failed"
        );
    }

    #[test]
    fn nothing_is_promoted_while_the_service_is_suspended() {
        let mut service = with(
            &[("Ready", "True", "Suspended")],
            json!({"phase": "Step", "candidate": "cats-2"}),
        );
        service.spec.suspend = Some(true);
        assert_eq!(kind(&outcome(&service, Goal::Promoted, None)), "waiting");
        assert_eq!(kind(&outcome(&service, Goal::Ready, None)), "reached");
    }

    #[test]
    fn an_abort_is_over_when_the_stable_revision_has_everything() {
        for (rollout, is) in [
            (
                json!({"phase": "Step", "stable": "cats-1", "candidate": "cats-2"}),
                "under way",
            ),
            (
                json!({"phase": "Aborting", "stable": "cats-1", "candidate": "cats-2"}),
                "under way",
            ),
            (
                json!({"phase": "Failed", "stable": "cats-1", "candidate": "cats-2"}),
                "reached",
            ),
            (json!({"phase": "Stable", "stable": "cats-1"}), "reached"),
            (json!({"phase": "Stable", "stable": "cats-2"}), "failed"),
        ] {
            let service = with(&[("Ready", "False", "RollingOut")], rollout.clone());
            assert_eq!(
                kind(&outcome(&service, Goal::TakenBack, Some("cats-2"))),
                is,
                "{rollout}"
            );
        }
    }

    #[test]
    fn a_pause_is_over_when_it_stands_still() {
        for (rollout, is) in [
            (json!({"phase": "Step", "candidate": "cats-2"}), "under way"),
            (
                json!({"phase": "Step", "candidate": "cats-2", "paused": "Commanded"}),
                "reached",
            ),
            (json!({"phase": "Stable", "stable": "cats-2"}), "failed"),
        ] {
            let service = with(&[("Ready", "False", "RollingOut")], rollout.clone());
            assert_eq!(
                kind(&outcome(&service, Goal::Paused, Some("cats-2"))),
                is,
                "{rollout}"
            );
        }
    }

    #[test]
    fn the_operator_says_which_command_it_looked_at_last() {
        let mut state = ortolan_core::rollout::State::new(None, jiff::Timestamp::UNIX_EPOCH);
        state.command = Some("abort cats-2 7".into());
        let state = serde_json::to_string(&state).expect("what the operator writes");
        let service = with(
            &[],
            json!({"phase": "Step", "candidate": "cats-2", "state": state}),
        );
        assert!(is_looked_at(&service, "abort cats-2 7"));
        assert!(!is_looked_at(&service, "abort cats-2 8"));
        let silent = with(
            &[],
            json!({"phase": "Step", "candidate": "cats-2", "state": "?"}),
        );
        assert!(!is_looked_at(&silent, "abort cats-2 7"));
    }
}
