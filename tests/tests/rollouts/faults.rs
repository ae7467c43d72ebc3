//! What breaks in the middle of a rollout.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};

use super::*;

/// A step that holds so long that something can break in it.
fn steady(file: &str) -> Value {
    let mut spec = canary(file);
    spec["rollout"]["steps"] = json!([{"weight": 10, "soak": "1s"}, {"weight": 50, "soak": "6s"}]);
    spec
}

#[test]
fn while_the_routers_are_silent_nothing_is_promoted_nor_taken_back() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        play.first(steady("a")).await;
        let new = play.change(steady("b")).await;
        play.until_weight(&new, 50).await;
        play.routers.hush();
        // After five seconds a silence is one.
        tokio::time::sleep(Duration::from_secs(7)).await;
        let before: InferenceService = w.get("m").await;
        let seen = play.routers.seen("m").len();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let after: InferenceService = w.get("m").await;
        let (before, after) = (rollout(&before), rollout(&after));
        assert_eq!(
            (after.phase, &after.stage),
            (RolloutPhase::Step, &before.stage)
        );
        assert_eq!(
            (after.generation, after.weight),
            (before.generation, Some(50))
        );
        let writes = play.routers.seen("m").len() - seen;
        assert!(writes <= 1, "{writes} writes for silence");
        play.routers.speak();
        play.until_promoted(&new).await;
        assert_eq!(play.shares(&new), [0, 10, 50, 100]);
    });
}

#[test]
fn while_the_routers_do_not_follow_the_weights_stay() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        play.first(steady("a")).await;
        play.routers.follow(false);
        let new = play.change(short("b")).await;
        play.until_weight(&new, 10).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        let now: InferenceService = w.get("m").await;
        assert_eq!(rollout(&now).stage.as_deref(), Some("Shift"));
        assert_eq!(play.shares(&new), [0, 10]);
        play.routers.follow(true);
        play.until_promoted(&new).await;
        assert_eq!(play.shares(&new), [0, 10, 50, 100]);
    });
}

#[test]
fn while_the_api_server_is_cut_off_nothing_moves_and_afterwards_it_goes_on() {
    on_stage(async |w| {
        let mut play = Play::start(&w).await;
        play.kill().await;
        let wire = Wire::new().await;
        play.operate(Tap::default(), Some(&wire));
        play.first(steady("a")).await;
        let new = play.change(steady("b")).await;
        play.until_weight(&new, 10).await;
        wire.cut();
        let seen = play.routers.seen("m").len();
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(
            play.routers.seen("m").len() <= seen + 1,
            "one write may have been under way"
        );
        wire.mend();
        play.until_promoted(&new).await;
        assert_eq!(play.shares(&new), [0, 10, 50, 100]);
        assert_eq!(play.told("RolloutStarted", &new).await, 1);
    });
}

/// Somebody else's write of the status.
async fn patch_status(w: &World, patch: Value) -> InferenceService {
    let params = PatchParams::default();
    let api = w.api::<InferenceService>();
    let patched = api.patch_status("m", &params, &Patch::Merge(patch)).await;
    patched.expect("the status is written")
}

/// The status is wiped at 50 %, by this patch.
async fn wiped(w: Arc<World>, patch: Value) {
    let play = Play::start(&w).await;
    let old = play.first(steady("a")).await;
    let new = play.change(steady("b")).await;
    let before = rollout(&play.until_weight(&new, 50).await);
    let left = patch_status(&w, patch).await;
    assert_eq!(left.status.and_then(|status| status.rollout), None);
    let again = play.until("it is known again", |_, _| true).await;
    let begun = rollout(&again);
    assert_eq!(begun.stable.as_deref(), Some(&*old));
    assert_eq!(
        weights(again.status.as_ref().expect("a status")),
        [(old.clone(), 100)],
        "not even a write that was under way brings it back"
    );
    assert!(
        begun.generation > before.generation,
        "the routers take a lower one for an old one"
    );
    assert_eq!(marked(&w).await, old);
    play.until_promoted(&new).await;
    assert_eq!(play.shares(&new), [0, 10, 50, 0, 10, 50, 100]);
}

#[test]
fn a_status_that_was_wiped_in_the_middle_begins_the_rollout_anew_from_the_stable_revision() {
    on_stage(async |w| wiped(w, json!({"status": null})).await);
}

#[test]
fn a_rollout_that_was_wiped_out_of_the_status_begins_anew_from_the_stable_revision() {
    on_stage(async |w| wiped(w, json!({"status": {"rollout": null}})).await);
}

/// What a newer version of the operator remembers, which this one cannot read.
const NEWER: &str = r#"{"phase":{"bargaining":{"round":2}},"offers":[3,5]}"#;

/// Until the operator says that it cannot read it; answers that status.
async fn until_it_cannot_be_read(w: &World) -> InferenceServiceStatus {
    let service = w.until_ready_is("m", "False", "UnreadableRollout").await;
    w.until_event("m", "UnreadableRollout", "another version of the operator")
        .await;
    let stalled = condition(&service, "Stalled").expect("a condition");
    assert_eq!(stalled.status, "True");
    service.status.expect("a status")
}

#[test]
fn an_operator_that_was_downgraded_in_the_middle_leaves_all_as_it_is_until_the_newer_one_is_back() {
    on_stage(async |w| {
        let mut play = Play::start(&w).await;
        let old = play.first(steady("a")).await;
        let new = play.change(steady("b")).await;
        let before = play.until_weight(&new, 10).await;
        play.kill().await;
        let known = w.get::<InferenceService>("m").await;
        let readable = rollout(&known).state.expect("a state");
        let shares = weights(known.status.as_ref().expect("a status"));
        patch_status(&w, json!({"status": {"rollout": {"state": NEWER}}})).await;
        play.operate(Tap::default(), None);
        let frozen = until_it_cannot_be_read(&w).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        let later = w.get::<InferenceService>("m").await;
        let status = later.status.clone().expect("a status");
        assert_eq!((&weights(&status), &status), (&shares, &frozen));
        assert_eq!(rollout(&later).state.as_deref(), Some(NEWER));
        assert_eq!(rollout(&later).generation, rollout(&before).generation);
        let pods = w.api::<k8s_openapi::api::core::v1::Pod>();
        let pods = pods.list(&kube::api::ListParams::default()).await;
        let pods = pods.expect("a list").items;
        for revision in [&old, &new] {
            let is_of = |pod: &&k8s_openapi::api::core::v1::Pod| {
                pod.labels().get(names::REVISION) == Some(revision)
            };
            assert!(pods.iter().any(|pod| is_of(&pod)), "{revision} has pods");
        }
        assert_eq!(play.told("UnreadableRollout", "").await, 1);

        play.kill().await;
        patch_status(&w, json!({"status": {"rollout": {"state": readable}}})).await;
        play.operate(Tap::default(), None);
        play.until_promoted(&new).await;
        assert_eq!(play.shares(&new), [0, 10, 50, 100]);
    });
}

#[test]
fn a_new_spec_ends_a_rollout_that_cannot_be_read() {
    on_stage(async |w| {
        let mut play = Play::start(&w).await;
        let old = play.first(steady("a")).await;
        let new = play.change(steady("b")).await;
        play.until_weight(&new, 50).await;
        play.kill().await;
        let before = rollout(&w.get("m").await).generation;
        patch_status(&w, json!({"status": {"rollout": {"state": NEWER}}})).await;
        play.operate(Tap::default(), None);
        until_it_cannot_be_read(&w).await;
        let third = play.change(steady("c")).await;
        let begun = play
            .until("it begins anew", |rollout, _| {
                rollout.candidate.as_deref() == Some(&*third)
            })
            .await;
        assert!(rollout(&begun).generation > before);
        assert_eq!(rollout(&begun).stable.as_deref(), Some(&*old));
        play.until_promoted(&third).await;
        assert_eq!(play.shares(&new), [0, 10, 50, 0]);
        assert_eq!(play.shares(&third), [0, 10, 50, 100]);
    });
}

#[test]
fn an_object_that_was_deleted_in_the_middle_is_another_service_when_it_comes_again() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        play.first(steady("a")).await;
        let new = play.change(steady("b")).await;
        play.until_weight(&new, 10).await;
        let deleted = w
            .api::<InferenceService>()
            .delete("m", &DeleteParams::background())
            .await;
        deleted.expect("a deletion");
        w.until_gone::<InferenceService>("m").await;
        w.until("garbage collection takes all", async || {
            let left = ortolan_tests::cluster::collect_garbage(&w).await;
            if left.is_empty() {
                Ok(())
            } else {
                Err(left.join(", "))
            }
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(
            ortolan_tests::cluster::collect_garbage(&w).await.is_empty(),
            "nothing is made again"
        );

        // The first revision of a service needs no steps.
        w.create("m", steady("b")).await;
        let service = w.until_ready_is("m", "True", "Serving").await;
        let after = rollout(&service);
        assert_eq!(
            (after.phase, after.stable.as_deref()),
            (RolloutPhase::Stable, Some(&*new))
        );
    });
}
