//! The verbs of `ortolan rollout`, and what waits.

use k8s_openapi::api::{apps::v1::ControllerRevision, events::v1::Event};
use kube::{ResourceExt as _, api::PostParams};
use ortolan_core::{revision::RevisionName, rollout};
use ortolan_crds::{InferenceService, names};
use ortolan_tests::{
    Cluster, Fate, Operator, World,
    world::{definition_stays, spec, world},
};
use serde_json::{Value, json};

use super::{Said, at, command, ends, ready, refused, write_status};
use crate::lifecycle::{revision_of, serving};

async fn annotation(w: &World, name: &str) -> Option<String> {
    let service: InferenceService = w.get(name).await;
    service.annotations().get(names::COMMAND).cloned()
}

#[test]
fn a_command_is_an_annotation_with_the_revision_and_a_nonce() {
    let _undisturbed = definition_stays();
    world(async |w| {
        w.create("cats", spec("a")).await;
        for (verb, status, revision) in [
            ("promote", at("Step", json!({"step": 1})), "cats-2"),
            ("promote", at("AwaitingApproval", json!({})), "cats-2"),
            ("pause", at("Step", json!({"step": 1})), "cats-2"),
            (
                "resume",
                at("Step", json!({"step": 1, "paused": "Commanded"})),
                "cats-2",
            ),
            ("abort", at("Promoting", json!({})), "cats-2"),
            (
                "retry",
                at("Failed", json!({"reason": "Aborted"})),
                "cats-2",
            ),
        ] {
            write_status(&w, "cats", &status).await;
            let before = annotation(&w, "cats").await;
            let said = ends(&w, &["rollout", verb, "cats"], 0).await;
            assert!(
                said.out.contains(&format!("{verb} {revision}")),
                "{}",
                said.out
            );
            let now = annotation(&w, "cats").await.expect("a command");
            assert_ne!(
                Some(&now),
                before.as_ref(),
                "each command has a nonce of its own"
            );
            let read: rollout::command::Command = now.parse().expect("the operator can read it");
            assert_eq!(
                (read.verb.to_string().as_str(), read.revision.as_str()),
                (verb, revision)
            );
        }
        let service: InferenceService = w.get("cats").await;
        assert_eq!(
            service.metadata.generation,
            Some(1),
            "nothing writes to the spec"
        );
        let managers = service.managed_fields();
        assert!(
            managers
                .iter()
                .any(|entry| entry.manager.as_deref() == Some("ortolan-cli"))
        );
    });
}

#[test]
fn a_command_gets_through_while_the_status_changes_all_the_time() {
    let _undisturbed = definition_stays();
    world(async |w| {
        w.create("cats", spec("a")).await;
        write_status(&w, "cats", &at("Step", json!({"step": 1}))).await;
        let writes = async {
            for generation in 0.. {
                write_status(
                    &w,
                    "cats",
                    &at("Step", json!({"step": 1, "generation": generation})),
                )
                .await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let commands = async {
            for _ in 0..10 {
                ends(&w, &["rollout", "pause", "cats"], 0).await;
            }
        };
        tokio::select! {
            () = writes => unreachable!("it writes without an end"),
            () = commands => {}
        }
        assert!(
            annotation(&w, "cats")
                .await
                .is_some_and(|text| text.starts_with("pause cats-2 "))
        );
    });
}

#[test]
fn a_command_hits_only_what_it_was_decided_by() {
    let _undisturbed = definition_stays();
    world(async |w| {
        w.create("cats", spec("a")).await;
        write_status(&w, "cats", &at("Step", json!({"step": 1}))).await;
        // The next candidate came: what was meant is told, and is refused.
        write_status(
            &w,
            "cats",
            &at("Step", json!({"step": 1, "candidate": "cats-3"})),
        )
        .await;
        refused(
            &w,
            &["rollout", "promote", "cats", "--revision", "cats-2"],
            "is cats-3, not cats-2",
        )
        .await;
        ends(&w, &["rollout", "promote", "cats", "--revision", "3"], 0).await;
        assert!(
            annotation(&w, "cats")
                .await
                .is_some_and(|text| text.starts_with("promote cats-3 "))
        );
    });
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_written() {
    let _undisturbed = definition_stays();
    world(async |w| {
        refused(
            &w,
            &["get", "cats"],
            "there is no InferenceService cats in namespace",
        )
        .await;
        w.create("cats", spec("a")).await;
        refused(&w, &["status", "catz"], "did you mean cats?").await;
        refused(
            &w,
            &["rollout", "promote", "cats"],
            "has not looked at cats yet",
        )
        .await;
        write_status(&w, "cats", &json!({"conditions": ready("True", "Serving")})).await;
        refused(&w, &["rollout", "promote", "cats"], "router.enabled=true").await;
        write_status(&w, "cats", &at("Stable", json!({}))).await;
        refused(
            &w,
            &["rollout", "promote", "cats"],
            "no rollout of cats is under way: cats-1 serves",
        )
        .await;
        refused(&w, &["rollout", "retry", "cats"], "nothing of cats failed").await;
        write_status(&w, "cats", &at("Failed", json!({}))).await;
        refused(
            &w,
            &["rollout", "abort", "cats"],
            "write `ortolan rollout retry cats`",
        )
        .await;
        write_status(&w, "cats", &at("Step", json!({"step": 1}))).await;
        refused(
            &w,
            &["rollout", "abort", "cats", "--revision", "cats-7"],
            "is cats-2, not cats-7",
        )
        .await;
        refused(
            &w,
            &["rollout", "undo", "cats"],
            "no earlier revision of cats served",
        )
        .await;
        assert_eq!(annotation(&w, "cats").await, None);
        refused(
            &w,
            &["get", "--context", "nowhere"],
            "the kubeconfig has no context nowhere",
        )
        .await;
        refused(
            &w,
            &["get", "--kubeconfig", "/nowhere/at/all"],
            "the kubeconfig cannot be used",
        )
        .await;
        let usage = ends(&w, &["rollout", "promot", "cats"], 2).await;
        assert!(usage.err.contains("promote"), "{}", usage.err);
    });
}

#[test]
fn the_exit_code_of_a_wait_says_what_became_of_it() {
    let _undisturbed = definition_stays();
    world(async |w| {
        w.create("cats", spec("a")).await;
        let promoted = json!({"conditions": ready("True", "Serving"), "rollout": {"phase": "Stable", "stable": "cats-2", "candidate": null, "paused": null}});
        for (status, code) in [
            (at("Step", json!({"step": 1, "paused": "Commanded"})), 4),
            (at("AwaitingApproval", json!({})), 4),
            (at("Failed", json!({"reason": "EvidenceAgainst"})), 3),
            (promoted.clone(), 0),
        ] {
            write_status(&w, "cats", &status).await;
            ends(&w, &["rollout", "status", "cats"], code).await;
            ends(&w, &["wait", "cats", "--for=promoted"], code).await;
        }
        ends(&w, &["wait", "cats"], 0).await;
        write_status(&w, "cats", &at("Step", json!({"step": 1}))).await;
        ends(&w, &["rollout", "status", "cats", "--watch=false"], 5).await;
        let late = ends(
            &w,
            &["wait", "cats", "--for", "promoted", "--timeout", "2s"],
            5,
        )
        .await;
        assert!(late.err.contains("not within 2 s"), "{}", late.err);

        // It waits, and hears of the end.
        let waiting = command(&w, &["rollout", "status", "cats", "--timeout", "60s"]).output();
        let promotes = async {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            write_status(&w, "cats", &promoted).await;
        };
        let (said, ()) = tokio::join!(waiting, promotes);
        let said = Said::from(said.expect("the program runs"));
        assert_eq!(said.code, 0, "{} {}", said.out, said.err);
        assert!(
            said.out.contains("cats: Step 1") && said.out.ends_with("cats: cats-2 is promoted\n"),
            "{}",
            said.out
        );
    });
}

/// What the operator remembers: the last command that it looked at.
fn state(command: &str) -> String {
    let mut state = rollout::State::new(
        Some(RevisionName::new("cats-1")),
        jiff::Timestamp::UNIX_EPOCH,
    );
    state.command = Some(command.to_owned());
    serde_json::to_string(&state).expect("a state")
}

async fn until_commanded(w: &World) -> String {
    w.until("a command is there", async || {
        annotation(w, "cats")
            .await
            .ok_or_else(|| "there is none".to_owned())
    })
    .await
}

#[test]
fn a_command_that_is_waited_for_ends_with_what_came_of_it() {
    let _undisturbed = definition_stays();
    world(async |w| {
        w.create("cats", spec("a")).await;
        write_status(&w, "cats", &at("Step", json!({"step": 1}))).await;
        let waiting = command(
            &w,
            &["rollout", "abort", "cats", "--wait", "--timeout", "60s"],
        )
        .output();
        let operates = async {
            let text = until_commanded(&w).await;
            write_status(&w, "cats", &at("Aborting", json!({"state": state(&text)}))).await;
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            write_status(
                &w,
                "cats",
                &at(
                    "Failed",
                    json!({"reason": "Aborted", "state": state(&text)}),
                ),
            )
            .await;
        };
        let (said, ()) = tokio::join!(waiting, operates);
        let said = Said::from(said.expect("the program runs"));
        assert_eq!(said.code, 0, "{} {}", said.out, said.err);
        assert!(
            said.out.contains("cats-2 is taken back, cats-1 serves"),
            "{}",
            said.out
        );

        // The status is of before the retry until the operator has looked at it.
        let waiting = command(
            &w,
            &["rollout", "retry", "cats", "--wait", "--timeout", "5s"],
        )
        .output();
        let said = Said::from(waiting.await.expect("the program runs"));
        assert_eq!(said.code, 5, "{} {}", said.out, said.err);
        assert!(
            said.out.contains("has not looked at the command yet"),
            "{}",
            said.out
        );
    });
}

#[test]
fn a_command_that_the_operator_refuses_is_an_error_in_its_words() {
    let _undisturbed = definition_stays();
    world(async |w| {
        w.create("cats", spec("a")).await;
        write_status(&w, "cats", &at("Step", json!({"step": 1}))).await;
        let note = "`promote cats-2` is refused: the candidate is cats-3";
        let waiting = command(
            &w,
            &["rollout", "promote", "cats", "--wait", "--timeout", "60s"],
        )
        .output();
        let refuses = async {
            let text = until_commanded(&w).await;
            let event: Event = serde_json::from_value(json!({
                "metadata": {"name": "refusal"}, "type": "Warning", "reason": "CommandRefused", "note": note,
                "action": "Reconcile", "eventTime": "2026-01-01T00:00:00.000000Z",
                "reportingController": "ortolan-operator", "reportingInstance": "test",
                "regarding": {"apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService", "name": "cats", "namespace": w.namespace},
            }))
            .expect("an event");
            w.api::<Event>()
                .create(&PostParams::default(), &event)
                .await
                .expect("the event is accepted");
            write_status(
                &w,
                "cats",
                &at("Step", json!({"step": 1, "state": state(&text)})),
            )
            .await;
        };
        let (said, ()) = tokio::join!(waiting, refuses);
        let said = Said::from(said.expect("the program runs"));
        assert_eq!(
            (said.code, said.err.trim_end()),
            (1, format!("error: {note}").as_str())
        );
    });
}

#[test]
fn undo_brings_the_operators_own_revision_back_and_history_shows_it() {
    let _undisturbed = definition_stays();
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let first = revision_of(&serving(&w, "cats", spec("a")).await);
        let mut changed = spec("b");
        changed["server"] = json!({"threads": 2});
        w.edit::<InferenceService>("cats", json!({"spec": changed}))
            .await;
        let second = revision_of(&w.until_ready_is("cats", "True", "Serving").await);
        assert_ne!(first, second);
        ends(&w, &["wait", "cats"], 0).await;

        let history = ends(&w, &["rollout", "history", "cats"], 0).await.out;
        let line = |revision: &str| {
            let line = history.lines().find(|line| line.contains(revision));
            line.unwrap_or_else(|| panic!("{revision} is in {history}"))
                .to_owned()
        };
        assert!(
            line(&second).contains("stable,spec") && line(&second).contains("b.onnx"),
            "{history}"
        );
        assert!(
            line(&first).starts_with("1 ") && line(&first).contains("a.onnx"),
            "{history}"
        );

        let said = ends(&w, &["rollout", "undo", "cats"], 0).await;
        assert!(
            said.out.contains(&format!("again that of {first}")) && said.out.contains("GitOps"),
            "{}",
            said.out
        );
        let undone: InferenceService = w.get("cats").await;
        let written = serde_json::to_value(&undone.spec).expect("JSON");
        assert_eq!(written, spec("a"), "server is gone, the rest is as it was");
        let back = w.until_ready_is("cats", "True", "Serving").await;
        assert_eq!(
            revision_of(&back),
            first,
            "the same revision serves, and no new one was made"
        );
        let kept = w
            .api::<ControllerRevision>()
            .list(&Default::default())
            .await
            .expect("a list");
        assert_eq!(kept.items.len(), 2);

        ends(&w, &["rollout", "undo", "cats", "--to", "2"], 0).await;
        assert_eq!(
            revision_of(&w.until_ready_is("cats", "True", "Serving").await),
            second
        );
        refused(
            &w,
            &["rollout", "undo", "cats", "--to", &second],
            "is what the spec says already",
        )
        .await;
        refused(
            &w,
            &["rollout", "undo", "cats", "--to", "9"],
            "has no revision 9",
        )
        .await;
        let json = ends(&w, &["rollout", "history", "cats", "-o", "json"], 0)
            .await
            .out;
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(
            (&json[1]["revision"], &json[1]["stable"]),
            (&json!(second), &json!(true))
        );
    });
}
