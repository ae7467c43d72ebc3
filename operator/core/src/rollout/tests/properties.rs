use proptest::{prelude::*, strategy::Strategy as _};

use super::{
    super::policy::{Approval, OnInconclusive, Strategy},
    *,
};

/// Few in the usual run; `ORTOLAN_ROLLOUT_HISTORIES=100000` for the whole sweep.
fn histories() -> ProptestConfig {
    let cases = std::env::var("ORTOLAN_ROLLOUT_HISTORIES");
    ProptestConfig {
        cases: cases.map_or(40, |text| text.parse().expect("a whole number")),
        ..ProptestConfig::default()
    }
}

fn strategy() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![
        4 => prop::collection::btree_set(1_u8..=100, 1..5)
            .prop_map(|weights| steps(&weights.into_iter().collect::<Vec<_>>())),
        1 => Just(Strategy::BlueGreen),
        1 => Just(Strategy::Recreate),
        1 => (0_u8..=100).prop_map(|percent| Strategy::Canary(Split::Weight(weight(percent)))),
    ]
}

fn policy() -> impl proptest::strategy::Strategy<Value = Policy> {
    (strategy(), any::<bool>(), 0_u8..3).prop_map(|(strategy, shadow, inconclusive)| {
        let mut policy = Policy {
            strategy,
            shadow: shadow.then_some(10),
            ..Policy::default()
        };
        policy.analysis.deadline = Duration::from_secs(600);
        policy.analysis.on_inconclusive = [
            OnInconclusive::Pause,
            OnInconclusive::Abort,
            OnInconclusive::Continue,
        ][usize::from(inconclusive)];
        policy
    })
}

/// Something that happens to a rollout.
#[derive(Clone, Debug)]
enum Event {
    Wait(usize),
    Want(u8),
    Command(&'static str, u8),
    Pods(u8, i32),
    Crash(u8),
    Recover(u8),
    Bad(u8, u64),
    Rate(u64),
    Replicas(u32),
    Silence(bool),
    Pause(bool),
    Suspend(bool),
    Approval(bool),
    Edit(Vec<u8>),
    SetBack(i64),
    LoseStatus,
    Incompatible(bool),
}

fn event() -> impl proptest::strategy::Strategy<Value = Event> {
    let verb = prop::sample::select(vec![
        "promote", "abort", "pause", "resume", "retry", "nonsense",
    ]);
    prop_oneof![
        8 => (1_usize..40).prop_map(Event::Wait),
        3 => (1_u8..4).prop_map(Event::Want),
        2 => (verb, 1_u8..4).prop_map(|(verb, of)| Event::Command(verb, of)),
        2 => (1_u8..4, 0_i32..5).prop_map(|(of, ready)| Event::Pods(of, ready)),
        1 => (1_u8..4).prop_map(Event::Crash),
        1 => (1_u8..4).prop_map(Event::Recover),
        2 => (1_u8..4, 0_u64..1_000).prop_map(|(of, bad)| Event::Bad(of, bad)),
        1 => (0_u64..300).prop_map(Event::Rate),
        1 => (0_u32..6).prop_map(Event::Replicas),
        1 => any::<bool>().prop_map(Event::Silence),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => any::<bool>().prop_map(Event::Approval),
        1 => prop::collection::btree_set(1_u8..=100, 0..5).prop_map(|s| Event::Edit(s.into_iter().collect())),
        1 => (1_i64..2_000).prop_map(Event::SetBack),
        1 => Just(Event::LoseStatus),
        1 => any::<bool>().prop_map(Event::Incompatible),
    ]
}

fn happen(world: &mut World, event: &Event, number: usize) {
    let name = |of: u8| format!("m-{of}");
    match event {
        Event::Wait(ticks) => world.ticks(*ticks),
        Event::Want(of) => world.want(&name(*of)),
        Event::Command(verb, of) => world.command(&format!("{verb} {} {number}", name(*of))),
        Event::Pods(of, ready) => {
            if let Some(health) = world.observed.health.get_mut(&rev(&name(*of))) {
                health.ready = (*ready).min(health.pods);
            }
        }
        Event::Crash(of) => {
            if world.observed.health.contains_key(&rev(&name(*of))) {
                world.crash(&name(*of));
            }
        }
        Event::Recover(of) => {
            if let Some(health) = world.observed.health.get_mut(&rev(&name(*of))) {
                health.cause = None;
            }
        }
        Event::Bad(of, bad) => {
            world.bad.insert(rev(&name(*of)), *bad);
        }
        Event::Rate(rate) => world.rate = *rate,
        Event::Replicas(replicas) => world.observed.load.replicas = *replicas,
        Event::Silence(silent) => world.observed.complete = !silent,
        Event::Pause(paused) => world.policy.paused = *paused,
        Event::Suspend(suspended) => world.policy.suspended = *suspended,
        Event::Approval(manual) => {
            world.policy.approval = match manual {
                true => Approval::Manual,
                false => Approval::Automatic,
            };
        }
        Event::Edit(weights) => world.policy.strategy = steps(weights),
        Event::SetBack(seconds) => world.second -= seconds,
        Event::LoseStatus => world.state = None,
        Event::Incompatible(no) => {
            world.observed.signature = match no {
                true => Signature::Incompatible("the input `x` is gone".into()),
                false => Signature::Same,
            };
        }
    }
    // Looked at again after every event; the world checks what must always hold.
    world.look();
}

/// Nothing disturbs any more.
fn calm(world: &mut World) {
    world.policy.paused = false;
    world.policy.suspended = false;
    world.policy.approval = Approval::Automatic;
    world.observed.complete = true;
    world.observed.command = None;
    world.observed.signature = Signature::Same;
    world.observed.load.replicas = 4;
    world.rate = 100;
    world.bad.clear();
    for health in world.observed.health.values_mut() {
        health.cause = None;
    }
}

fn at_rest(world: &World) -> bool {
    matches!(world.phase(), Phase::Stable | Phase::Failed { .. })
}

fn rest(world: &mut World) {
    for _ in 0..3_000 {
        world.tick();
        if at_rest(world) {
            break;
        }
    }
}

proptest! {
    #![proptest_config(histories())]

    #[test]
    fn a_healthy_candidate_is_stable_in_bounded_time(policy in policy(), seconds in 0_i64..100) {
        let by_hand = matches!(policy.strategy, Strategy::Canary(Split::Weight(_)));
        let mut world = World::new(policy);
        world.second += seconds;
        // None at all: errors that come like clockwork are no chance, and need not fall by shares.
        world.bad.insert(rev("m-2"), 0);
        world.want("m-2");
        let mut highest = Weight::NONE;
        for tick in 0..2_000 {
            world.tick();
            if by_hand && tick == 200 {
                world.command("promote m-2 1");
            }
            let now = world.state().weight;
            if world.phase() == Phase::Stable {
                break;
            }
            prop_assert!(now >= highest, "the share fell from {} to {}", highest, now);
            highest = now;
        }
        prop_assert_eq!(world.phase(), Phase::Stable);
        prop_assert_eq!(world.share("m-2"), 100);
        prop_assert_eq!(world.mark.clone(), Some(rev("m-2")));
    }

    #[test]
    fn a_candidate_that_always_fails_ends_failed_with_the_stable_revision_serving(policy in policy(), how in 0_u8..4) {
        let mut world = World::new(policy);
        let without_traffic = matches!(world.policy.strategy, Strategy::Canary(Split::Weight(Weight::NONE)));
        if without_traffic && how == 0 {
            // A candidate that gets no requests fails none.
            return Ok(());
        }
        world.want("m-2");
        match how {
            0 => { world.bad.insert(rev("m-2"), 900); }
            1 => world.stuck.push(rev("m-2")),
            2 => world.observed.golden = Golden::Failed("nothing agrees".into()),
            // All at once, another signature may be what is wanted.
            _ if !matches!(world.policy.strategy, Strategy::Canary(_)) => return Ok(()),
            _ => world.observed.signature = Signature::Incompatible("another input".into()),
        }
        rest(&mut world);
        prop_assert!(failed(&world).is_some(), "{:?}", world.state());
        prop_assert_eq!(world.share("m-1"), 100);
        prop_assert_eq!(world.mark.clone(), Some(rev("m-1")));
    }

    #[test]
    fn any_history_keeps_the_invariants_and_comes_to_rest(policy in policy(), events in prop::collection::vec(event(), 1..40)) {
        let mut world = World::new(policy);
        for (number, event) in events.iter().enumerate() {
            happen(&mut world, event, number);
        }
        calm(&mut world);
        if matches!(world.policy.strategy, Strategy::Canary(Split::Weight(_))) {
            world.policy.strategy = Strategy::BlueGreen;
        }
        // A clock that was set back, a drain, a soak: all of it is over after some hours.
        rest(&mut world);
        if world.state().pause.is_some() {
            let candidate = world.state().candidate.clone().expect("something is paused");
            world.command(&format!("resume {candidate} last"));
            rest(&mut world);
        }
        prop_assert!(at_rest(&world), "{:?}", world.state());
        let serving = world.state().stable.clone().expect("something serves");
        prop_assert_eq!(world.last.traffic.get(&serving).copied(), Some(Weight::ALL));
        if world.phase() == Phase::Stable {
            prop_assert_eq!(serving, world.observed.wanted.clone());
        }
    }
}
