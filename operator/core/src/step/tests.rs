use proptest::{
    prelude::{any, prop, prop_assert, prop_assert_eq, proptest},
    strategy::Strategy as Generator,
};

use super::*;
use crate::failure::Class;

fn name(text: &str) -> RevisionName {
    RevisionName::new(text)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

fn pods(ready: i32, pods: i32) -> Health {
    Health {
        deployed: true,
        pods,
        ready,
        cause: None,
    }
}

fn failing(class: Class) -> Health {
    let cause = Cause {
        reason: "InvalidModel".into(),
        message: "truncated".into(),
        exit_code: Some(15),
        class,
    };
    Health {
        deployed: true,
        pods: 1,
        ready: 0,
        cause: Some(cause),
    }
}

#[derive(Debug)]
struct Case {
    strategy: Strategy,
    replicas: i32,
    stable: Option<&'static str>,
    wanted: &'static str,
    health: Vec<(&'static str, Health)>,
    now: i64,
    outage: Option<i64>,
}

impl Case {
    fn new(stable: Option<&'static str>, wanted: &'static str) -> Self {
        Self {
            strategy: Strategy::BlueGreen,
            replicas: 2,
            stable,
            wanted,
            health: Vec::new(),
            now: 1000,
            outage: None,
        }
    }

    fn has(mut self, revision: &'static str, health: Health) -> Self {
        self.health.push((revision, health));
        self
    }

    fn recreate(mut self) -> Self {
        self.strategy = Strategy::Recreate;
        self
    }

    fn decide(&self, suspended: bool) -> Decision {
        let stable = self.stable.map(name);
        let wanted = name(self.wanted);
        let health = self
            .health
            .iter()
            .map(|(n, h)| (name(n), h.clone()))
            .collect();
        step(&Facts {
            strategy: self.strategy,
            suspended,
            replicas: if suspended { 0 } else { self.replicas },
            stable: stable.as_ref().map(|stable| (stable, at(0))),
            wanted: &wanted,
            health: &health,
            outage: self.outage.map(at),
            now: at(self.now),
        })
    }
}

/// What runs, as `a:2 b:2`.
fn run(decision: &Decision) -> String {
    let each: Vec<String> = decision
        .run
        .iter()
        .map(|(n, r)| format!("{n}:{r}"))
        .collect();
    each.join(" ")
}

#[test]
fn the_first_revision_serves_from_the_start_and_is_promoted_when_ready() {
    let starting = Case::new(None, "a").decide(false);
    assert_eq!((run(&starting).as_str(), starting.promote), ("a:2", false));
    assert_eq!(
        (starting.serve.as_str(), starting.phase.clone()),
        ("a", Phase::Starting(None))
    );
    let one = Case::new(None, "a").has("a", pods(1, 2)).decide(false);
    assert!(!one.promote);
    let ready = Case::new(None, "a").has("a", pods(2, 2)).decide(false);
    assert_eq!(
        (ready.promote, ready.phase, ready.requeue),
        (true, Phase::Serving, None)
    );
}

#[test]
fn a_first_revision_that_never_served_makes_room_for_its_correction_at_once() {
    let decision = Case::new(None, "b")
        .has("a", failing(Class::Terminal))
        .has("b", pods(0, 2))
        .decide(false);
    assert_eq!(run(&decision).as_str(), "b:2");
}

#[test]
fn a_candidate_starts_beside_the_stable_revision_and_gets_no_request() {
    for health in [
        pods(0, 2),
        pods(1, 2),
        failing(Class::Transient),
        failing(Class::Terminal),
    ] {
        let decision = Case::new(Some("a"), "b")
            .has("a", pods(2, 2))
            .has("b", health)
            .decide(false);
        assert_eq!(run(&decision).as_str(), "a:2 b:2");
        assert_eq!((decision.serve.as_str(), decision.promote), ("a", false));
    }
}

#[test]
fn a_candidate_that_failed_is_told_from_one_that_may_still_come() {
    let phase = |class| {
        Case::new(Some("a"), "b")
            .has("a", pods(2, 2))
            .has("b", failing(class))
            .decide(false)
            .phase
    };
    assert!(matches!(phase(Class::Terminal), Phase::RolloutFailed(_)));
    assert!(matches!(
        phase(Class::Transient),
        Phase::RollingOut(Some(_))
    ));
}

#[test]
fn after_a_promotion_the_old_revision_keeps_its_pods_until_the_service_has_moved() {
    let promoted = Case::new(Some("a"), "b")
        .has("a", pods(2, 2))
        .has("b", pods(2, 2))
        .decide(false);
    assert_eq!((promoted.serve.as_str(), promoted.promote), ("b", true));
    assert_eq!(run(&promoted).as_str(), "a:2 b:2");
    assert_eq!(promoted.requeue, Some(SETTLE));

    let mut settling = Case::new(Some("b"), "b")
        .has("a", pods(2, 2))
        .has("b", pods(2, 2));
    settling.now = 4;
    let early = settling.decide(false);
    assert_eq!(
        (run(&early).as_str(), early.phase.clone()),
        ("a:2 b:2", Phase::Serving)
    );
    assert_eq!(early.requeue, Some(SETTLE - Duration::from_secs(4)));
    settling.now = 10;
    let late = settling.decide(false);
    assert_eq!((run(&late).as_str(), late.requeue), ("b:2", None));
}

#[test]
fn after_an_outage_the_old_revision_keeps_its_pods_until_every_node_has_caught_up() {
    // Promoted at 0; the API server did not answer until `outage`.
    let left = |outage, now| {
        let mut settling = Case::new(Some("b"), "b")
            .has("a", pods(2, 2))
            .has("b", pods(2, 2));
        (settling.outage, settling.now) = (Some(outage), now);
        let decision = settling.decide(false);
        (run(&decision), decision.requeue)
    };
    let kept = |left| ("a:2 b:2".to_owned(), Some(left));
    assert_eq!(left(-20, 4), kept(AFTERMATH - Duration::from_secs(24)));
    assert_eq!(left(30, 31), kept(AFTERMATH - Duration::from_secs(1)));
    assert_eq!(left(-20, 55), ("b:2".to_owned(), None));
    assert_eq!(left(-70, 6), kept(SETTLE - Duration::from_secs(6)));
    // A change of long ago is not looked at again.
    assert_eq!(left(1000, 1001), ("b:2".to_owned(), None));
}

#[test]
fn a_spec_that_is_taken_back_drops_its_candidate_at_once() {
    let decision = Case::new(Some("a"), "a")
        .has("a", pods(2, 2))
        .has("b", failing(Class::Terminal))
        .decide(false);
    assert_eq!(
        (run(&decision).as_str(), decision.phase.clone()),
        ("a:2", Phase::Serving)
    );
}

#[test]
fn a_third_revision_replaces_a_candidate_under_way() {
    let decision = Case::new(Some("a"), "c")
        .has("a", pods(2, 2))
        .has("b", pods(1, 2))
        .decide(false);
    assert_eq!(run(&decision).as_str(), "a:2 c:2");
}

#[test]
fn recreate_starts_nothing_while_another_revision_has_pods() {
    let stopping = Case::new(Some("a"), "b")
        .recreate()
        .has("a", pods(2, 2))
        .decide(false);
    assert_eq!(
        (run(&stopping).as_str(), stopping.phase.clone()),
        ("", Phase::Stopping(name("a")))
    );
    let ending = Health {
        deployed: false,
        pods: 1,
        ready: 0,
        cause: None,
    };
    let waiting = Case::new(Some("a"), "b")
        .recreate()
        .has("a", ending)
        .decide(false);
    assert_eq!(
        (run(&waiting).as_str(), waiting.phase.clone()),
        ("", Phase::Stopping(name("a")))
    );
    let starting = Case::new(Some("a"), "b").recreate().decide(false);
    assert_eq!(
        (run(&starting).as_str(), starting.serve.as_str()),
        ("b:2", "b")
    );
    let ready = Case::new(Some("a"), "b")
        .recreate()
        .has("b", pods(2, 2))
        .decide(false);
    assert_eq!((ready.promote, run(&ready).as_str()), (true, "b:2"));
}

#[test]
fn recreate_taken_back_stops_the_candidate_before_the_stable_revision_starts_again() {
    let back = Case::new(Some("a"), "a")
        .recreate()
        .has("b", failing(Class::Terminal))
        .decide(false);
    assert_eq!(
        (run(&back).as_str(), back.phase.clone()),
        ("", Phase::Stopping(name("b")))
    );
    let again = Case::new(Some("a"), "a").recreate().decide(false);
    assert_eq!(run(&again).as_str(), "a:2");
}

#[test]
fn recreate_never_stops_a_stable_revision_that_is_still_wanted() {
    let decision = Case::new(Some("a"), "a")
        .recreate()
        .has("a", pods(2, 2))
        .has("b", pods(0, 1))
        .decide(false);
    assert_eq!(
        (run(&decision).as_str(), decision.phase.clone()),
        ("a:2", Phase::Serving)
    );
}

#[test]
fn a_suspended_service_keeps_its_objects_and_no_pods() {
    let decision = Case::new(Some("a"), "b")
        .has("a", pods(2, 2))
        .has("b", pods(0, 1))
        .decide(true);
    assert_eq!(
        (run(&decision).as_str(), decision.phase.clone()),
        ("a:0 b:0", Phase::Suspended)
    );
}

#[test]
fn lost_pods_and_failing_pods_of_the_serving_revision_are_told_apart() {
    let phase = |health| {
        Case::new(Some("a"), "a")
            .has("a", health)
            .decide(false)
            .phase
    };
    assert_eq!(phase(pods(1, 2)), Phase::Recovering(None));
    assert!(matches!(
        phase(failing(Class::Transient)),
        Phase::Recovering(Some(_))
    ));
    assert!(matches!(phase(failing(Class::Terminal)), Phase::Broken(_)));
}

fn any_health() -> impl Generator<Value = Health> {
    (any::<bool>(), 0..4_i32, 0..4_i32, 0..3_u8).prop_map(|(deployed, pods, ready, cause)| {
        let cause = match cause {
            0 => None,
            1 => failing(Class::Transient).cause,
            _ => failing(Class::Terminal).cause,
        };
        Health {
            deployed,
            pods,
            ready: ready.min(pods),
            cause,
        }
    })
}

fn any_case() -> impl Generator<Value = (Case, bool)> {
    let names = prop::sample::select(vec!["a", "b", "c"]);
    (
        prop::option::of(names.clone()),
        names,
        prop::collection::vec(any_health(), 3),
        any::<bool>(),
        any::<bool>(),
        0..30_i64,
        1..4_i32,
    )
        .prop_map(
            |(stable, wanted, health, recreate, suspended, now, replicas)| {
                let mut case = Case::new(stable, wanted);
                case.health = ["a", "b", "c"].into_iter().zip(health).collect();
                case.health.retain(|(_, h)| h.deployed || h.pods > 0);
                case.now = now;
                case.replicas = replicas;
                (if recreate { case.recreate() } else { case }, suspended)
            },
        )
}

proptest! {
    /// A bad revision never replaces a good one.
    #[test]
    fn the_service_leaves_a_stable_revision_only_for_one_that_is_ready(
        (case, suspended) in any_case()
    ) {
        let decision = case.decide(suspended);
        if let Some(stable) = case.stable
            && case.strategy == Strategy::BlueGreen
            && decision.serve.as_str() != stable
        {
            let of = case.health.iter().find(|(n, _)| *n == decision.serve.as_str());
            prop_assert!(of.is_some_and(|(_, h)| h.serves(case.replicas)));
        }
    }

    #[test]
    fn blue_green_never_takes_the_pods_of_the_revision_that_serves((case, suspended) in any_case()) {
        let decision = case.decide(suspended);
        if case.strategy == Strategy::BlueGreen && !suspended {
            prop_assert_eq!(decision.run.get(&decision.serve), Some(&case.replicas));
            if let Some(stable) = case.stable
                && (decision.promote || decision.serve.as_str() == stable)
                && case.health.iter().any(|(n, h)| *n == stable && h.deployed)
            {
                prop_assert!(decision.run.contains_key(&name(stable)));
            }
        }
    }

    #[test]
    fn recreate_never_runs_two_revisions((case, suspended) in any_case()) {
        let decision = case.decide(suspended);
        if case.strategy == Strategy::Recreate && !suspended {
            prop_assert!(decision.run.len() <= 1);
            for (started, replicas) in &decision.run {
                let running = case.health.iter().any(|(n, h)| *n == started.as_str() && h.deployed);
                let others = case.health.iter().any(|(n, h)| *n != started.as_str() && h.pods > 0);
                prop_assert!(*replicas == 0 || running || !others);
            }
        }
    }

    #[test]
    fn a_suspended_service_has_no_pods((case, _) in any_case()) {
        prop_assert!(case.decide(true).run.values().all(|replicas| *replicas == 0));
    }

    #[test]
    fn only_a_ready_revision_is_promoted((case, suspended) in any_case()) {
        let decision = case.decide(suspended);
        if decision.promote {
            let of = case.health.iter().find(|(n, _)| *n == case.wanted);
            prop_assert!(of.is_some_and(|(_, h)| h.serves(case.replicas)));
        }
    }
}
