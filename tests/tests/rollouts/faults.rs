//! What breaks in the middle of a rollout.

use std::time::Duration;

use kube::api::DeleteParams;

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
