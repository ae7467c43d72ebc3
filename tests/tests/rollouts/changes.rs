//! Changes in the middle of a rollout, by its user.

use std::time::Duration;

use super::*;

/// Steps that nobody waits out.
fn held(file: &str) -> Value {
    let mut spec = canary(file);
    spec["rollout"]["steps"] = json!([{"weight": 20, "soak": "1h"}]);
    spec
}

#[test]
fn three_changes_in_a_row_are_one_rollout_to_the_last() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        let old = play.first(held("a")).await;
        let second = play.change(held("b")).await;
        play.until_weight(&second, 20).await;
        let third = play.change(held("c")).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let fourth = play.change(short("d")).await;
        w.until_event("m", "RolloutReplaced", "The spec asks for")
            .await;
        play.until_promoted(&fourth).await;
        assert_eq!(
            play.shares(&second),
            [0, 20, 0],
            "its share goes before the next gets one"
        );
        assert_eq!(play.shares(&third), [0], "nobody asked for it long enough");
        assert_eq!(play.shares(&fourth), [0, 10, 50, 100]);
        for status in play.routers.seen("m") {
            let sum: i32 = status.traffic.iter().map(|traffic| traffic.weight).sum();
            assert!(
                sum == 100 || status.traffic.is_empty(),
                "{:?}",
                status.traffic
            );
            assert!(weight(&status, &second) + weight(&status, &fourth) <= 100);
            assert!(weight(&status, &second) == 0 || weight(&status, &fourth) == 0);
        }
        assert_eq!(
            play.told(
                "RolloutStarted",
                &format!("{fourth} is to take over from {old}")
            )
            .await,
            1
        );
        assert_eq!(play.told("Promoted", &fourth).await, 1);
    });
}

#[test]
fn a_change_back_takes_the_candidate_back_and_is_no_failure() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        let old = play.first(held("a")).await;
        let new = play.change(held("b")).await;
        play.until_weight(&new, 20).await;
        assert_eq!(play.change(held("a")).await, old);
        let back = w.until_ready_is("m", "True", "Serving").await;
        let after = rollout(&back);
        assert_eq!(
            (after.phase, after.stable.as_deref()),
            (RolloutPhase::Stable, Some(&*old))
        );
        assert_eq!(
            weights(back.status.as_ref().expect("a status")),
            [(old.clone(), 100)]
        );
        assert_eq!(play.shares(&new), [0, 20, 0]);
        assert_eq!(marked(&w).await, old);
        assert_eq!(play.told("RolloutFailed", "").await, 0);

        // And once more: it is not remembered as one that failed.
        assert_eq!(play.change(short("b")).await, new);
        play.until_promoted(&new).await;
    });
}

#[test]
fn a_revision_that_the_status_has_forgotten_is_described_anew_when_it_comes_back() {
    on_stage(async |w| {
        let at_once = |file: &str| {
            let mut spec = spec(file);
            spec["rollout"] = json!({
                "strategy": "BlueGreen", "rollbackWindow": "0s", "analysis": {"settle": "10s"},
            });
            spec
        };
        let play = Play::start(&w).await;
        let old = play.first(at_once("a")).await;
        let new = play.change(at_once("b")).await;
        play.until_promoted(&new).await;
        w.until_service("the old revision is forgotten", "m", |service| {
            let revisions = &service.status.as_ref().expect("a status").revisions;
            revisions.iter().all(|revision| revision.name != old)
        })
        .await;
        assert_eq!(play.change(at_once("a")).await, old);
        play.until_promoted(&old).await;
    });
}

#[test]
fn pause_resume_abort_and_other_steps_are_obeyed_where_the_rollout_stands() {
    on_stage(async |w| {
        let play = Play::start(&w).await;
        let old = play.first(short("a")).await;
        let mut wait = short("b");
        wait["rollout"]["approval"] = json!("Manual");
        let new = play.change(wait).await;
        play.until_weight(&new, 10).await;
        play.command(&format!("pause {new} 1")).await;
        let paused = w.until_ready_is("m", "False", "Paused").await;
        let stays = weight(paused.status.as_ref().expect("a status"), &new);
        tokio::time::sleep(Duration::from_secs(6)).await;
        let still: InferenceService = w.get("m").await;
        assert_eq!(
            weight(still.status.as_ref().expect("a status"), &new),
            stays
        );
        assert_eq!(
            condition(&still, "Progressing")
                .expect("a condition")
                .status,
            "False"
        );
        play.command(&format!("resume {new} 2")).await;
        w.until_ready_is("m", "False", "AwaitingApproval").await;
        assert_eq!(play.shares(&new), [0, 10, 50]);
        play.command(&format!("abort {new} 3")).await;
        w.until_event("m", "Aborted", "abort was commanded").await;
        let failed = play.until_failed(&new, &old).await;
        assert_eq!(rollout(&failed).reason.as_deref(), Some("Aborted"));
        assert_eq!(play.told("CommandRefused", "").await, 0);
    });
}
