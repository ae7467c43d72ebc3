//! How a rollout ends that nobody disturbs.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use ortolan_tests::{
    audit,
    kstatus::{Kstatus, kstatus},
};

use super::*;

#[test]
fn a_healthy_candidate_is_promoted_step_by_step_and_then_nothing_is_written_any_more() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        let old = play.first(canary("a")).await;
        let new = play.change(canary("b")).await;
        let before: InferenceService = w.get("m").await;
        let done = play.until_promoted(&new).await;

        assert_eq!(play.shares(&new), [0, 5, 10, 20, 30, 40, 50, 100]);
        assert!(
            play.shares(&old)
                .windows(2)
                .skip(1)
                .all(|two| two[0] > two[1])
        );
        let condition = condition(&done, "Ready").expect("a condition");
        assert_eq!(
            (&*condition.status, &*condition.reason),
            ("True", "Serving")
        );
        assert_eq!(kstatus(&done), Kstatus::Current);
        w.until_event(
            "m",
            "RolloutStarted",
            &format!("{new} is to take over from {old}"),
        )
        .await;
        w.until_event("m", "Promoted", &format!("{new} serves"))
            .await;
        assert_eq!(play.told("Promoted", &new).await, 1);
        let rollout = rollout(&done);
        assert_eq!(
            (rollout.kept.as_deref(), rollout.candidate),
            (Some(&*old), None)
        );
        let _kept: Deployment = w.get(&old).await;

        // What `kubectl diff` and a GitOps tool look at is as the user left it.
        assert_eq!(done.spec, before.spec);
        assert_eq!(done.metadata.generation, before.metadata.generation);
        assert_eq!(done.metadata.annotations, before.metadata.annotations);
        let writers = writers_of_the_spec(&done);
        assert!(
            writers.iter().all(|writer| writer.starts_with("kubectl")),
            "{writers:?}"
        );

        tokio::time::sleep(Duration::from_secs(3)).await;
        let operator = play.operator.as_ref().expect("an operator");
        let (mark, writes) = (audit::mark(), operator.tap.writes());
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!(operator.tap.writes(), writes);
        let asked = audit::since(mark, &operator.agent);
        let asked: Vec<_> = asked
            .iter()
            // Whoever writes the definition ends the watches, and they list anew; where the test of absent routes takes
            // their definitions away the operator looks for them again.
            .filter(|request| !request.is_upkeep() && request.verb != "list")
            .filter(|request| !request.uri.starts_with("/apis/gateway.networking.k8s.io"))
            .collect();
        assert!(asked.is_empty(), "{asked:#?}");
    });
}

#[test]
fn a_worse_candidate_is_taken_back_by_the_evidence_and_stays_failed_until_the_spec_changes() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        let old = play.first(canary("a")).await;
        let mut worse = canary("b");
        // The blocks close with each change of the weights: many small steps are many votes.
        worse["rollout"]["steps"] = (1..=18)
            .map(|n| json!({"weight": 4 * n, "soak": "1s"}))
            .collect();
        let new = named(&worse);
        play.routers.conduct(&new, WORSE);
        assert_eq!(play.change(worse.clone()).await, new);
        w.until_event("m", "EvidenceAgainst", "is taken back: errors")
            .await;
        let failed = play.until_failed(&new, &old).await;
        let after = rollout(&failed);
        assert_eq!(after.reason.as_deref(), Some("EvidenceAgainst"));
        let evidence = after.evidence.expect("evidence");
        assert!(evidence.e_value >= evidence.limit, "{evidence:?}");
        assert_eq!(kstatus(&failed), Kstatus::Failed);
        assert_eq!(marked(&w).await, old);
        let stalled = condition(&failed, "Stalled").expect("a condition");
        assert!(
            stalled.message.contains(&format!("revision {old} serves")),
            "{}",
            stalled.message
        );
        assert_eq!(play.told("EvidenceAgainst", &new).await, 1);

        // The same again is the same, and nothing is written for it. Numbers of pods are written every five seconds.
        tokio::time::sleep(Duration::from_secs(7)).await;
        let operator = play.operator.as_ref().expect("an operator");
        let writes = operator.tap.writes();
        play.change(worse).await;
        let note = json!({"metadata": {"annotations": {"note": "applied again"}}});
        w.edit::<InferenceService>("m", note).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        play.until_failed(&new, &old).await;
        assert_eq!(operator.tap.writes(), writes);
        assert_eq!(play.told("RolloutStarted", &new).await, 1);

        // Another one begins anew.
        let third = play.change(short("c")).await;
        play.until_weight(&third, 10).await;
        let seen = play.shares(&third);
        assert_eq!(seen, [0, 10]);
        play.until_promoted(&third).await;
        let kept: Option<Deployment> = w.api().get_opt(&new).await.expect("an answer");
        assert!(kept.is_none(), "the one that failed has no pods any more");
    });
}

#[test]
fn a_candidate_that_fails_is_taken_back_at_once_and_tried_again_by_command() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        let old = play.first(short("a")).await;
        let mut held = short("b");
        held["rollout"]["steps"] = json!([{"weight": 10, "soak": "1h"}]);
        let new = play.change(held).await;
        play.until_weight(&new, 10).await;
        play.routers.conduct(&new, HOPELESS);
        w.until_event("m", "CandidateFails", &new).await;
        play.until_failed(&new, &old).await;

        for (command, why) in [
            (
                format!("retry {old} 1"),
                format!("the revision that failed is {new}"),
            ),
            (
                format!("promote {new} 1"),
                format!("{new} failed; write retry to try it again"),
            ),
            ("retry".to_owned(), "is not of the form".to_owned()),
        ] {
            play.command(&command).await;
            let reason = if command == "retry" {
                "InvalidCommand"
            } else {
                "CommandRefused"
            };
            w.until_event("m", reason, &why).await;
        }
        play.until_failed(&new, &old).await;

        play.routers.conduct(
            &new,
            Conduct {
                bad: 0.0,
                millis: 20,
            },
        );
        play.command(&format!("retry {new} 1")).await;
        play.until_weight(&new, 10).await;
        assert_eq!(play.told("RolloutStarted", &new).await, 2);
        // No further steps.
        play.command(&format!("promote {new} 2")).await;
        play.until_promoted(&new).await;
        assert_eq!(play.shares(&new), [0, 10, 0, 10, 100]);
    });
}

#[test]
fn examples_of_answers_that_differ_are_kept_in_a_config_map_and_written_now_and_then() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        let old = play.first(short("a")).await;
        let shadow = json!({"percent": 50, "compare": {"kind": "Classification"}});
        let mut wrong = short("b");
        wrong["rollout"]["shadow"] = shadow.clone();
        let new = named(&wrong);
        play.routers.differ(&new);
        let mark = audit::mark();
        assert_eq!(play.change(wrong).await, new);
        let failed = play.until_failed(&new, &old).await;
        assert_eq!(play.shares(&new), [0], "copies, and no request");
        let evidence = rollout(&failed).evidence.expect("evidence");
        assert_eq!(evidence.examples.as_deref(), Some("m-examples"));
        let map = w
            .until_object::<ConfigMap>("the first examples", "m-examples", |map| {
                lines(map) >= ortolan_stats::EXAMPLES
            })
            .await;
        let data = map.data.clone().unwrap_or_default();
        assert_eq!((&data["stable"], &data["candidate"]), (&old, &new));
        assert!(
            data["examples.jsonl"].contains(r#""classes":["3","7"]"#),
            "{data:?}"
        );
        let owners = map.metadata.owner_references.unwrap_or_default();
        assert!(
            owners
                .iter()
                .any(|owner| owner.name == "m" && owner.kind == "InferenceService")
        );
        tokio::time::sleep(Duration::from_secs(12)).await;
        let operator = play.operator.as_ref().expect("an operator");
        let writes = audit::since(mark, &operator.agent);
        let writes = writes.iter().filter(|request| {
            request.verb == "patch" && request.uri.contains("configmaps/m-examples")
        });
        let writes = writes.count();
        assert!((1..=2).contains(&writes), "{writes} writes of examples");

        // The next rollout takes them away.
        let mut right = short("c");
        right["rollout"]["shadow"] = shadow;
        let third = play.change(right).await;
        play.until_promoted(&third).await;
        let gone: Option<ConfigMap> = w.api().get_opt("m-examples").await.expect("an answer");
        assert!(gone.is_none(), "{gone:?}");
    });
}

/// How many examples a ConfigMap holds.
fn lines(map: &ConfigMap) -> usize {
    let data = map.data.as_ref();
    let text = data.and_then(|data| data.get("examples.jsonl"));
    text.map_or(0, |text| text.lines().count())
}

#[test]
fn a_candidate_of_another_signature_gets_no_request() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        let old = play.first(short("a")).await;
        play.cluster.fate("b.onnx", pods::telling_otherwise());
        let new = play.change(short("b")).await;
        w.until_event("m", "SignatureIncompatible", "shape").await;
        play.until_failed(&new, &old).await;
        assert_eq!(play.shares(&new), [0]);
    });
}

fn at_once(file: &str, strategy: &str) -> Value {
    let mut spec = spec(file);
    spec["rollout"] = json!({"strategy": strategy, "analysis": {"settle": "10s"}});
    spec
}

#[test]
fn blue_green_moves_everything_at_once_and_back_without_starting_a_pod() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        let old = play.first(at_once("a", "BlueGreen")).await;
        let before: Deployment = w.get(&old).await;
        let new = play.change(at_once("b", "BlueGreen")).await;
        play.until_promoted(&new).await;
        assert_eq!(play.shares(&new), [0, 100]);

        // Its pods are still there.
        assert_eq!(play.change(at_once("a", "BlueGreen")).await, old);
        play.until_promoted(&old).await;
        assert_eq!(play.shares(&old), [0, 100, 0, 100]);
        let after: Deployment = w.get(&old).await;
        assert_eq!(after.metadata.uid, before.metadata.uid);
        assert_eq!(after.metadata.generation, before.metadata.generation);
    });
}

#[test]
fn recreate_ends_the_old_pods_before_the_new_ones_start_and_says_so() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        let old = play.first(at_once("a", "Recreate")).await;
        let new = play.change(at_once("b", "Recreate")).await;
        let said = format!("{old} stops before {new} starts: nothing serves in between");
        w.until_event("m", "RolloutStarted", &said).await;
        play.until_promoted(&new).await;
        assert_eq!(play.shares(&new), [0, 100]);
        w.until_object::<Deployment>("it is kept without pods", &old, |old| {
            old.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)
        })
        .await;
    });
}
