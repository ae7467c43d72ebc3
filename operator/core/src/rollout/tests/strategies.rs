//! The strategies, capacity, and comparing answers.

use super::{
    super::{
        policy::Approval,
        state::{AbortStage, PromotionStage},
        times,
    },
    *,
};

#[test]
fn blue_green_is_all_at_once_when_the_pods_are_there() {
    let mut world = World::new(Policy {
        strategy: Strategy::BlueGreen,
        ..Policy::default()
    });
    world.want("m-2");
    world.until(|w| {
        w.phase()
            == Phase::Promoting {
                stage: PromotionStage::Settle,
            }
    });
    assert_eq!(world.shares, [0, 100]);
    assert_eq!(world.floor("m-1"), Some(4), "the way back");
    world.until(|w| serves(w, "m-2"));
}

#[test]
fn blue_green_is_taken_back_by_the_frozen_rate() {
    let mut world = World::new(Policy {
        strategy: Strategy::BlueGreen,
        ..Policy::default()
    });
    world.bad.insert(rev("m-2"), 40);
    world.want("m-2");
    world.until(|w| failed(w).is_some());
    assert_eq!(failed(&world).as_deref(), Some("EvidenceAgainst"));
    assert_eq!(world.share("m-1"), 100);
    assert_eq!(world.mark, Some(rev("m-1")));
}

#[test]
fn recreate_stops_the_old_before_the_new_starts_and_says_so() {
    let mut world = World::new(Policy {
        strategy: Strategy::Recreate,
        ..Policy::default()
    });
    world.want("m-2");
    world.look();
    assert_eq!(world.phase(), Phase::Stopping);
    assert!(
        world
            .last
            .tell
            .message
            .starts_with("Nothing serves until m-1 has ended")
    );
    assert_eq!(world.floor("m-1"), Some(0));
    assert_eq!(world.floor("m-2"), Some(0));
    for _ in 0..200 {
        world.tick();
        let pods = |name| world.observed.pods(&rev(name));
        assert!(pods("m-1") == 0 || pods("m-2") == 0, "both have pods");
    }
    assert!(serves(&world, "m-2"));
}

#[test]
fn recreate_goes_back_the_same_way() {
    let mut world = World::new(Policy {
        strategy: Strategy::Recreate,
        ..Policy::default()
    });
    world.want("m-2");
    world.until(|w| w.phase() == Phase::Preparing);
    world.crash("m-2");
    for _ in 0..100 {
        world.tick();
        let pods = |name| world.observed.pods(&rev(name));
        assert!(pods("m-1") == 0 || pods("m-2") == 0, "both have pods");
    }
    assert_eq!(failed(&world).as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(world.observed.ready(&rev("m-1")), 4);
    assert_eq!(world.share("m-1"), 100);
}

#[test]
fn recreate_asks_before_anything_stops() {
    let mut world = World::new(Policy {
        strategy: Strategy::Recreate,
        approval: Approval::Manual,
        ..Policy::default()
    });
    world.want("m-2");
    world.ticks(100);
    assert_eq!(world.phase(), Phase::AwaitingApproval);
    assert_eq!(world.observed.ready(&rev("m-1")), 4);
    world.command("promote m-2 1");
    world.until(|w| serves(w, "m-2"));
}

#[test]
fn a_weight_set_by_hand_stays_until_it_is_changed_or_promoted() {
    let by_hand = |percent| Strategy::Canary(Split::Weight(weight(percent)));
    let mut world = canary();
    world.policy.strategy = by_hand(10);
    world.want("m-2");
    world.ticks(1_000);
    assert_eq!(world.share("m-2"), 10);
    world.policy.strategy = by_hand(30);
    world.until(|w| w.share("m-2") == 30);
    world.policy.strategy = by_hand(0);
    world.look();
    assert_eq!(world.share("m-2"), 0);
    world.policy.strategy = by_hand(100);
    world.until(|w| w.share("m-2") == 100);
    world.ticks(100);
    assert_eq!(world.mark, Some(rev("m-1")), "no promotion by itself");
    world.command("promote m-2 1");
    world.until(|w| serves(w, "m-2"));
}

#[test]
fn the_weight_waits_for_pods() {
    let mut world = canary();
    world.observed.load.planned = Some(400.0);
    world.observed.per_replica = [(rev("m-1"), 100.0), (rev("m-2"), 25.0)].into();
    world.want("m-2");
    world.until(|w| w.phase() == in_step(1, Stage::PreScale));
    assert_eq!(world.floor("m-2"), Some(4), "25 % of 400 at 25 each");
    world.until(|w| w.phase() == in_step(1, Stage::Soak));
    assert_eq!(world.observed.ready(&rev("m-2")), 4);
    world.until(|w| serves(w, "m-2"));
    assert_eq!(world.told("CapacityFalls"), 1);
}

#[test]
fn a_candidate_that_fails_serves_on_until_the_stable_revision_has_its_pods() {
    let mut world = canary();
    world.observed.load = Load {
        planned: Some(400.0),
        replicas: 1,
    };
    world.observed.per_replica = [(rev("m-1"), 100.0), (rev("m-2"), 100.0)].into();
    world.want("m-2");
    world.until(|w| w.phase() == in_step(2, Stage::Soak));
    assert_eq!(world.floor("m-1"), Some(2), "half of it");
    world.ticks(2);
    assert_eq!(world.observed.ready(&rev("m-1")), 2);
    world.command("abort m-2 1");
    world.look();
    assert_eq!(
        world.share("m-2"),
        50,
        "the stable revision has pods for half"
    );
    assert_eq!(world.floor("m-1"), Some(4));
    world.set_pods("m-1", 4, 3);
    world.look();
    assert_eq!(world.share("m-2"), 25);
    world.until(|w| failed(w).is_some());
    assert_eq!(world.share("m-1"), 100);
}

#[test]
fn a_stable_revision_that_gets_no_pods_gets_the_traffic_in_the_end() {
    let mut world = canary();
    world.observed.load = Load {
        planned: Some(400.0),
        replicas: 1,
    };
    world.observed.per_replica = [(rev("m-1"), 100.0), (rev("m-2"), 100.0)].into();
    world.want("m-2");
    world.until(|w| w.phase() == in_step(2, Stage::Soak));
    world.command("abort m-2 1");
    let patience = i64::try_from(times::PATIENCE.as_secs()).expect("in range");
    // The command is seen in the first of these looks.
    let end = world.second + LOOK + patience;
    while world.second < end {
        world.set_pods("m-1", 2, 2);
        world.second += LOOK;
        world.observed.followed = Some(world.last.generation);
        world.look();
    }
    assert_eq!(world.share("m-1"), 100);
    assert!(matches!(
        world.phase(),
        Phase::Aborting {
            stage: AbortStage::ShiftBack,
            ..
        }
    ));
}

fn compared(differ: u64) -> World {
    let mut world = canary();
    world.policy.shadow = Some(10);
    world.policy.analysis.signals.insert(Signal::Disagreement);
    world.pairs = (20, differ);
    world.want("m-2");
    world.until(|w| w.phase() == Phase::Shadowing);
    world
}

#[test]
fn answers_are_compared_before_the_candidate_gets_requests_of_its_own() {
    let mut world = compared(0);
    let mirror = world.last.mirror.clone().expect("copies");
    assert_eq!((mirror.to, mirror.percent), (rev("m-2"), 10));
    let looks = world.until(|w| w.phase() != Phase::Shadowing);
    assert_eq!(looks, 5, "a hundred pairs");
    assert_eq!(world.phase(), in_step(0, Stage::PreScale));
    assert_eq!(world.share("m-1"), 100);
    assert!(world.last.mirror.is_some(), "and beside them");
    world.until(|w| serves(w, "m-2"));
    assert_eq!(world.last.mirror, None);
}

#[test]
fn a_hopeless_candidate_is_seen_in_copies_however_few_requests_a_step_needs() {
    let mut world = canary();
    world.policy.shadow = Some(10);
    world.policy.analysis.min_requests = 20;
    world.policy.analysis.signals.insert(Signal::Disagreement);
    world.pairs = (20, 20);
    world.want("m-2");
    world.until(|w| failed(w).is_some());
    assert_eq!(failed(&world).as_deref(), Some("CandidateFails"));
    assert!(world.shares.iter().all(|share| *share == 0));
}

#[test]
fn a_candidate_that_answers_otherwise_is_taken_back() {
    for (differ, reason) in [(18, "CandidateFails"), (4, "EvidenceAgainst")] {
        let mut world = compared(differ);
        world.until(|w| failed(w).is_some());
        assert_eq!(failed(&world).as_deref(), Some(reason));
        let Phase::Failed { why, .. } = world.phase() else {
            unreachable!()
        };
        assert!(
            why.message.starts_with("answers that differ"),
            "{}",
            why.message
        );
        assert!(*world.shares.iter().max().expect("a value") <= 5);
    }
}
