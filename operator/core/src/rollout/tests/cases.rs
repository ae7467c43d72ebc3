//! What happens to a rollout from outside: pods, the spec, sleep, a lost status.

use std::time::Duration;

use super::{
    super::{
        evidence::drift::{Drift, drift},
        state::Then,
    },
    *,
};

#[test]
fn a_healthy_candidate_takes_over_step_by_step() {
    let mut world = canary();
    world.want("m-2");
    world.until(|w| serves(w, "m-2"));
    assert_eq!(
        world.shares,
        [0, 5, 25, 50, 100, 0],
        "the candidate's shares"
    );
    assert_eq!(world.mark, Some(rev("m-2")));
    assert_eq!(world.told("Promoted"), 1);
    assert_eq!(world.told("RolloutStarted"), 1);
    // Three soaks of 60 s and the settling of 120 s, and a few looks for each shift.
    assert!((300..480).contains(&world.second), "{} s", world.second);
}

#[test]
fn the_first_revision_serves_when_all_its_pods_are_ready() {
    let mut world = World::empty(Policy::default());
    world.look();
    assert_eq!(world.phase(), Phase::Preparing);
    assert_eq!(world.floor("m-1"), Some(4));
    world.set_pods("m-1", 4, 3);
    world.look();
    assert_eq!(world.phase(), Phase::Preparing);
    world.set_pods("m-1", 4, 4);
    world.look();
    assert!(serves(&world, "m-1"));
    assert_eq!(world.mark, Some(rev("m-1")));
}

#[test]
fn the_first_revision_goes_on_trying_when_it_fails() {
    let mut world = World::empty(Policy::default());
    world.look();
    world.crash("m-1");
    world.ticks(300);
    assert_eq!(world.phase(), Phase::Preparing);
    world
        .observed
        .health
        .get_mut(&rev("m-1"))
        .expect("a value")
        .cause = None;
    world.until(|w| serves(w, "m-1"));
}

#[test]
fn a_candidate_that_fails_more_is_taken_back_with_the_reason() {
    let mut world = canary();
    world.bad.insert(rev("m-2"), 50);
    world.want("m-2");
    world.until(|w| failed(w).is_some());
    assert_eq!(failed(&world).as_deref(), Some("EvidenceAgainst"));
    assert_eq!(world.share("m-1"), 100);
    let Phase::Failed { why, .. } = world.phase() else {
        unreachable!()
    };
    assert!(
        why.message.starts_with("errors and timeouts: "),
        "{}",
        why.message
    );
    assert_eq!(world.told("EvidenceAgainst"), 1);
    assert_eq!(
        *world.shares.iter().max().expect("a value"),
        5,
        "it never got more"
    );
    let evidence = world.state().evidence.as_ref().expect("kept to be read");
    assert!(evidence.is_against(0.99));
}

#[test]
fn a_candidate_that_fails_always_is_taken_back_by_the_guard() {
    let mut world = canary();
    world.bad.insert(rev("m-2"), 1_000);
    world.want("m-2");
    world.until(|w| failed(w).is_some());
    assert_eq!(failed(&world).as_deref(), Some("CandidateFails"));
}

#[test]
fn a_crash_loop_needs_no_test() {
    let mut world = in_first_step();
    world.crash("m-2");
    world.look();
    assert!(matches!(world.phase(), Phase::Aborting { .. }));
    assert_eq!(world.share("m-1"), 100);
    world.until(|w| failed(w).is_some());
    assert_eq!(failed(&world).as_deref(), Some("CrashLoopBackOff"));
}

#[test]
fn a_candidate_that_cannot_start_never_gets_a_request() {
    let mut world = canary();
    world.want("m-2");
    world.tick();
    world.crash("m-2");
    world.tick();
    assert_eq!(failed(&world).as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(world.shares, [0]);
}

#[test]
fn pods_that_are_never_ready_fail_at_the_deadline() {
    let mut world = canary();
    world.stuck.push(rev("m-2"));
    world.want("m-2");
    world.until(|w| failed(w).is_some());
    assert_eq!(failed(&world).as_deref(), Some("DeadlineExceeded"));
    assert!(
        world.second >= 600 && world.second < 620,
        "{} s",
        world.second
    );
}

#[test]
fn what_is_looked_at_before_traffic_decides() {
    let cases = [
        (
            Signature::Incompatible("the input `x` is gone".into()),
            Golden::None,
            Some("SignatureIncompatible"),
        ),
        (
            Signature::Same,
            Golden::Failed("91 of 100 agree".into()),
            Some("ValidationFailed"),
        ),
        (Signature::Unknown, Golden::None, None),
        (Signature::Same, Golden::Running, None),
    ];
    for (signature, golden, reason) in cases {
        let mut world = canary();
        world.observed.signature = signature.clone();
        world.observed.golden = golden;
        world.want("m-2");
        world.ticks(50);
        assert_eq!(failed(&world).as_deref(), reason, "{signature:?}");
        assert_eq!(world.shares, [0], "{signature:?}");
        if reason.is_none() {
            assert_eq!(world.phase(), Phase::Preparing);
        }
    }
    let mut world = canary();
    world.observed.signature = Signature::Widened("a new output `score`".into());
    world.observed.golden = Golden::Passed("100 of 100 agree".into());
    world.want("m-2");
    world.until(|w| serves(w, "m-2"));
    assert_eq!(world.told("SignatureWidened"), 1);
}

#[test]
fn a_candidate_without_endpoints_gets_nothing_and_its_wish_is_kept() {
    let mut world = in_first_step();
    world.set_pods("m-2", 1, 0);
    world.look();
    assert_eq!((world.share("m-1"), world.share("m-2")), (100, 0));
    assert_eq!(world.state().weight, weight(5));
    assert_eq!(world.told("CandidateUnavailable"), 1);
    world.set_pods("m-2", 1, 1);
    world.look();
    assert_eq!(world.share("m-2"), 5);
    assert_eq!(world.phase(), in_step(0, Stage::Soak));
}

#[test]
fn a_candidate_that_stays_without_endpoints_failed() {
    let mut world = in_first_step();
    world.stuck.push(rev("m-2"));
    world.until(|w| failed(w).is_some());
    assert_eq!(failed(&world).as_deref(), Some("LostReadiness"));
}

#[test]
fn a_stable_revision_without_endpoints_gives_everything_to_the_candidate_without_promotion() {
    let mut world = in_first_step();
    world.set_pods("m-1", 4, 0);
    world.look();
    assert_eq!((world.share("m-1"), world.share("m-2")), (0, 100));
    assert_eq!(world.told("StableUnavailable"), 1);
    assert_eq!(world.mark, Some(rev("m-1")));
    assert_eq!(world.phase(), in_step(0, Stage::Soak));
    world.set_pods("m-1", 4, 4);
    world.look();
    assert_eq!((world.share("m-1"), world.share("m-2")), (95, 5));
}

#[test]
fn a_candidate_before_its_first_step_stands_in_for_a_stable_revision_that_failed() {
    let mut world = canary();
    world.crash("m-1");
    world.want("m-2");
    world.until(|w| w.share("m-2") == 100);
    world.ticks(500);
    assert_eq!(
        world.phase(),
        in_step(0, Stage::PreScale),
        "which is no promotion"
    );
    world.command("promote m-2 1");
    world.until(|w| serves(w, "m-2"));
}

#[test]
fn when_both_are_empty_everything_stays_where_it_is() {
    let mut world = in_first_step();
    let (traffic, generation) = (world.last.traffic.clone(), world.last.generation);
    world.set_pods("m-1", 4, 0);
    world.set_pods("m-2", 1, 0);
    world.look();
    assert_eq!(
        (&world.last.traffic, world.last.generation),
        (&traffic, generation)
    );
}

#[test]
fn a_new_revision_in_mid_rollout_begins_anew_from_zero() {
    let mut world = in_first_step();
    world.until(|w| w.phase() == in_step(1, Stage::Soak));
    world.want("m-3");
    world.look();
    assert_eq!(world.share("m-1"), 100, "weight 0 first");
    world.until(|w| w.phase() == Phase::Preparing);
    assert_eq!(world.state().candidate, Some(rev("m-3")));
    let evidence = world.state().evidence.as_ref().expect("new evidence");
    assert_eq!(evidence.requests_in_step(), 0);
    assert_eq!(
        evidence.tests()[&Signal::Errors].total(),
        Default::default()
    );
    world.until(|w| serves(w, "m-3"));
    assert_eq!(world.told("RolloutReplaced"), 1);
}

#[test]
fn a_spec_that_goes_back_to_the_stable_revision_takes_the_candidate_back() {
    let mut world = in_first_step();
    world.want("m-1");
    world.look();
    assert!(matches!(
        world.phase(),
        Phase::Aborting {
            then: Then::Leave,
            ..
        }
    ));
    world.until(|w| serves(w, "m-1"));
    assert_eq!(failed(&world), None);
}

#[test]
fn other_fields_restart_nothing() {
    let mut world = in_first_step();
    let before = world.phase();
    world.observed.load.replicas = 6;
    world.policy.rollback_window = Duration::ZERO;
    world.policy.analysis.min_requests = 50;
    world.look();
    assert_eq!(world.phase(), before);
    assert_eq!(world.share("m-2"), 5);
}

#[test]
fn edited_steps_clamp_the_place_and_never_raise_the_weight_at_once() {
    let mut world = in_first_step();
    world.until(|w| w.phase() == in_step(2, Stage::Soak));
    world.policy.strategy = steps(&[5, 75]);
    world.look();
    assert_eq!(world.phase(), in_step(1, Stage::PreScale));
    assert_eq!(world.share("m-2"), 50);
    world.until(|w| w.phase() == in_step(1, Stage::Soak));
    assert_eq!(world.share("m-2"), 75);
    world.policy.strategy = steps(&[5, 10]);
    world.look();
    assert_eq!(world.share("m-2"), 10, "a lower weight counts at once");
    world.policy.strategy = steps(&[5, 20]);
    world.look();
    assert_eq!(world.share("m-2"), 10, "a higher one does not");
}

#[test]
fn a_rollback_within_the_window_needs_no_steps() {
    let mut world = canary();
    world.want("m-2");
    world.until(|w| serves(w, "m-2"));
    assert_eq!(world.floor("m-1"), Some(4), "kept warm");
    world.ticks(2);
    world.shares.clear();
    world.want("m-1");
    let looks = world.until(|w| w.share("m-1") == 100);
    assert!(looks <= 2, "{looks} looks");
    world.until(|w| serves(w, "m-1"));
    assert_eq!(world.shares.iter().max(), Some(&100));
    assert!(!world.shares.contains(&5));
}

#[test]
fn the_old_revision_is_kept_warm_then_cold_then_not_at_all() {
    let mut world = canary();
    world.want("m-2");
    world.until(|w| serves(w, "m-2"));
    world.ticks(118);
    assert_eq!(world.floor("m-1"), Some(4));
    world.ticks(3);
    assert_eq!(world.floor("m-1"), Some(0));
    world.ticks(595);
    assert_eq!(world.floor("m-1"), Some(0));
    world.ticks(6);
    assert_eq!(world.floor("m-1"), None);
    world.want("m-1");
    world.tick();
    assert_eq!(world.phase(), Phase::Preparing, "a known revision no more");
}

#[test]
fn a_rollback_while_asleep_moves_the_pointer_and_starts_no_pod() {
    let mut world = canary();
    world.want("m-2");
    world.until(|w| serves(w, "m-2"));
    world.observed.load.replicas = 0;
    world.ticks(3);
    assert!(
        world.last.floors.values().all(|pods| *pods == 0),
        "{:?}",
        world.last.floors
    );
    world.want("m-1");
    world.look();
    assert!(serves(&world, "m-1"));
    assert!(
        world.last.floors.values().all(|pods| *pods == 0),
        "{:?}",
        world.last.floors
    );
}

#[test]
fn a_rollout_while_asleep_runs_the_golden_set_then_waits_at_its_first_step() {
    let mut world = canary();
    world.observed.load.replicas = 0;
    world.observed.golden = Golden::Running;
    world.ticks(2);
    world.want("m-2");
    world.tick();
    assert_eq!(world.floor("m-2"), Some(1), "a pod for the golden set");
    world.ticks(2);
    assert_eq!(world.phase(), Phase::Preparing);
    world.observed.golden = Golden::Passed("100 of 100 agree".into());
    world.ticks(100);
    assert_eq!(world.phase(), in_step(0, Stage::PreScale));
    assert_eq!(world.floor("m-2"), Some(0));
    assert_eq!(world.share("m-1"), 100);
    world.observed.load.replicas = 4;
    world.until(|w| serves(w, "m-2"));
}

#[test]
fn a_status_that_was_lost_loses_no_revision() {
    let mut world = in_first_step();
    let before = world.last.generation;
    world.state = None;
    // The routers were not heard of since the operator restarted.
    let counted = (
        std::mem::take(&mut world.observed.readings),
        world.observed.followed.take(),
    );
    world.second += LOOK;
    world.look();
    (world.observed.readings, world.observed.followed) = counted;
    assert_eq!(world.share("m-1"), 100, "it begins anew");
    assert!(
        world.last.generation > before,
        "under a generation that no router counts under"
    );
    assert_eq!(world.state().candidate, Some(rev("m-2")));
    world.until(|w| serves(w, "m-2"));
}

/// Classes of a thousand pairs, of which so many moved from one class to another.
fn moved(pairs: u64) -> Option<Drift> {
    let counts = [("cat", [600, 600 - pairs]), ("dog", [400, 400 + pairs])];
    let counts = counts.map(|(class, both)| (class.to_owned(), both));
    drift(&counts.into(), Count::new(1000, 0))
}

#[test]
fn drift_of_the_classes_is_told_once_and_takes_nothing_back() {
    let mut world = canary();
    world.want("m-2");
    world.until(|w| matches!(w.phase(), Phase::Step { .. }));
    world.observed.drift = moved(10);
    world.ticks(5);
    assert_eq!(world.told("ClassDrift"), 0);
    let known = |world: &World| {
        let state = world.state.as_ref().expect("a state");
        let evidence = state.evidence.as_ref().expect("evidence");
        let drift = evidence.drift().expect("it is known");
        (drift.distance, drift.notable)
    };
    assert_eq!(known(&world), (0.01, false));
    world.observed.drift = moved(80);
    world.ticks(5);
    // It stays what it was told as, whatever comes after.
    world.observed.drift = moved(10);
    world.ticks(5);
    world.observed.drift = moved(80);
    world.ticks(5);
    assert_eq!(known(&world), (0.08, true));
    assert_eq!(world.told("ClassDrift"), 1);
    world.until(|w| serves(w, "m-2"));
}
