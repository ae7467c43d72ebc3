//! Commands, pauses, approval, and too few requests.

use std::time::Duration;

use super::{
    super::{
        policy::{Approval, OnInconclusive},
        state::{Pause, PromotionStage},
    },
    *,
};

#[test]
fn a_service_that_nobody_asks_waits_or_is_promoted_as_the_policy_says() {
    for (policy, end) in [
        (OnInconclusive::Pause, "Paused"),
        (OnInconclusive::Abort, "RolloutFailed"),
        (OnInconclusive::Continue, "Serving"),
    ] {
        let mut world = canary();
        world.policy.analysis.on_inconclusive = policy;
        world.policy.analysis.deadline = Duration::from_secs(300);
        world.rate = 0;
        world.want("m-2");
        world.ticks(400);
        assert_eq!(world.last.tell.reason, end);
        assert_eq!(
            world.share("m-2") == 100,
            policy == OnInconclusive::Continue
        );
        if policy == OnInconclusive::Pause {
            assert_eq!(world.state().pause, Some(Pause::Inconclusive));
            world.rate = 100;
            world.until(|w| serves(w, "m-2"));
        }
    }
}

#[test]
fn too_few_requests_do_not_pass_a_step() {
    let mut world = canary();
    world.rate = 4;
    world.want("m-2");
    world.until(|w| w.phase() == in_step(0, Stage::Analyse));
    // One request of five seconds is the candidate's: the hundredth comes after 500 s.
    world.ticks(50);
    assert_eq!(world.phase(), in_step(0, Stage::Analyse));
    world.until(|w| w.phase() == in_step(1, Stage::Soak));
    assert!(world.second >= 500, "{} s", world.second);
}

#[test]
fn silence_of_the_routers_neither_promotes_nor_rolls_back() {
    for phase in [in_step(0, Stage::Soak), in_step(2, Stage::Analyse)] {
        for policy in [
            OnInconclusive::Pause,
            OnInconclusive::Abort,
            OnInconclusive::Continue,
        ] {
            let mut world = canary();
            world.policy.analysis.on_inconclusive = policy;
            // So that every step comes to wait for requests.
            world.policy.analysis.min_requests = 4_000;
            world.want("m-2");
            world.until(|w| w.phase() == phase);
            let (share, before) = (world.share("m-2"), world.phase());
            world.observed.complete = false;
            world.ticks(2_000);
            assert_eq!(world.phase(), before);
            assert_eq!(world.share("m-2"), share);
            assert_eq!(world.state().pause, None);
            world.observed.complete = true;
            world.until(|w| serves(w, "m-2"));
        }
    }
}

#[test]
fn a_stale_or_unreadable_command_is_refused_with_an_event() {
    let mut world = in_first_step();
    let cases = [
        ("promote m-9 1", "CommandRefused"),
        ("promote", "InvalidCommand"),
        ("retry m-2 2", "CommandRefused"),
        ("resume m-2 3", "CommandRefused"),
    ];
    for (place, (command, reason)) in cases.into_iter().enumerate() {
        world.command(command);
        world.look();
        world.look();
        let told = world.told("CommandRefused") + world.told("InvalidCommand");
        assert_eq!(told, place + 1, "{command} once");
        assert_eq!(world.notices.last().expect("a value").reason, reason);
        assert_eq!(world.share("m-2"), 5, "{command}");
    }
    let message = &world
        .notices
        .iter()
        .find(|n| n.reason == "CommandRefused")
        .expect("a value")
        .message;
    assert_eq!(message, "`promote m-9` is refused: the candidate is m-2");
}

#[test]
fn promote_skips_what_is_left_and_does_nothing_while_promoting() {
    let mut world = in_first_step();
    world.command("promote m-2 1");
    world.look();
    assert_eq!(
        world.phase(),
        Phase::Promoting {
            stage: PromotionStage::PreScale
        }
    );
    world.until(|w| {
        w.phase()
            == Phase::Promoting {
                stage: PromotionStage::Settle,
            }
    });
    let timer = world.state().timer;
    world.command("promote m-2 2");
    world.look();
    assert_eq!(
        world.phase(),
        Phase::Promoting {
            stage: PromotionStage::Settle
        }
    );
    assert_eq!(world.state().timer, timer);
    world.until(|w| serves(w, "m-2"));
    assert!(!world.shares.contains(&25));
}

#[test]
fn abort_takes_back_and_retry_tries_again() {
    let mut world = in_first_step();
    world.command("abort m-2 1");
    world.until(|w| failed(w).is_some());
    assert_eq!(failed(&world).as_deref(), Some("Aborted"));
    assert_eq!(world.share("m-1"), 100);
    assert_eq!(world.floor("m-2"), Some(0));
    world.ticks(100);
    assert_eq!(
        failed(&world).as_deref(),
        Some("Aborted"),
        "the same spec again changes nothing"
    );
    world.command("promote m-2 2");
    world.tick();
    assert_eq!(failed(&world).as_deref(), Some("Aborted"));
    world.command("retry m-9 3");
    world.tick();
    assert_eq!(failed(&world).as_deref(), Some("Aborted"));
    world.command("retry m-2 4");
    world.until(|w| serves(w, "m-2"));
}

#[test]
fn a_failed_revision_is_forgotten_when_the_spec_changes() {
    let mut world = in_first_step();
    world.command("abort m-2 1");
    world.until(|w| failed(w).is_some());
    world.want("m-1");
    world.tick();
    assert!(serves(&world, "m-1"));
    world.want("m-2");
    world.until(|w| serves(w, "m-2"));
}

#[test]
fn a_pause_stops_weights_and_timers() {
    let by_command = |w: &mut World| w.command("pause m-2 1");
    let by_spec = |w: &mut World| w.policy.paused = true;
    for (pause, resume) in [
        (
            by_command as fn(&mut World),
            (|w| w.command("resume m-2 2")) as fn(&mut World),
        ),
        (by_spec, |w| w.policy.paused = false),
    ] {
        let mut world = in_first_step();
        pause(&mut world);
        world.ticks(500);
        assert_eq!(world.phase(), in_step(0, Stage::Soak));
        assert_eq!(world.last.tell.reason, "Paused");
        assert_eq!(world.share("m-2"), 5);
        resume(&mut world);
        let looks = world.until(|w| w.phase() != in_step(0, Stage::Soak));
        assert!(
            looks >= 10,
            "the soak goes on where it stood: {looks} looks"
        );
        world.until(|w| serves(w, "m-2"));
    }
}

#[test]
fn a_paused_rollout_can_be_aborted() {
    let mut world = in_first_step();
    world.policy.paused = true;
    world.tick();
    world.command("abort m-2 1");
    world.until(|w| failed(w).is_some());
    assert_eq!(world.share("m-1"), 100);
}

#[test]
fn a_suspended_service_has_no_pods_and_goes_on_afterwards() {
    let mut world = in_first_step();
    world.policy.suspended = true;
    world.ticks(200);
    assert!(world.last.floors.values().all(|pods| *pods == 0));
    assert_eq!(world.phase(), in_step(0, Stage::Soak));
    assert_eq!(world.last.tell.reason, "Suspended");
    world.policy.suspended = false;
    world.until(|w| serves(w, "m-2"));
}

#[test]
fn a_clock_that_is_set_back_lets_no_time_pass() {
    let mut world = in_first_step();
    world.second -= 1_000;
    world.ticks(50);
    assert_eq!(world.phase(), in_step(0, Stage::Soak));
    assert_eq!(world.share("m-2"), 5);
    world.until(|w| serves(w, "m-2"));
}

#[test]
fn manual_approval_waits_for_promote() {
    let mut world = canary();
    world.policy.approval = Approval::Manual;
    world.want("m-2");
    world.ticks(400);
    assert_eq!(world.phase(), Phase::AwaitingApproval);
    assert_eq!(world.share("m-2"), 50);
    assert_eq!(world.last.tell.reason, "AwaitingApproval");
    assert_eq!(world.told("AwaitingApproval"), 1);
    world.command("promote m-2 1");
    world.until(|w| serves(w, "m-2"));
}

#[test]
fn a_candidate_that_turns_bad_while_it_waits_for_approval_is_taken_back() {
    let mut world = canary();
    world.policy.approval = Approval::Manual;
    world.want("m-2");
    world.until(|w| w.phase() == Phase::AwaitingApproval);
    world.bad.insert(rev("m-2"), 200);
    world.until(|w| failed(w).is_some());
    assert_eq!(world.share("m-1"), 100);
}
