//! Rollouts in a small world of pods, routers and counters; every look checks what must always hold.

mod cases;
mod control;
mod properties;
mod strategies;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    capacity::{Load, needed},
    effects::Effects,
    evidence::{Count, Counters, Reading, Signal, Tally},
    observed::{Golden, Observed, Signature},
    policy::{CanaryStep, Policy, Split, Strategy, Weight},
    state::{Phase, Stage, State},
    step,
};
use crate::{
    failure::{Cause, Class},
    notice::Notice,
    revision::RevisionName,
};

/// Seconds between two looks.
const LOOK: i64 = 5;

fn rev(name: &str) -> RevisionName {
    RevisionName::new(name)
}

fn weight(percent: u8) -> Weight {
    Weight::new(percent).expect("at most 100")
}

fn steps(weights: &[u8]) -> Strategy {
    let step = |percent: &u8| CanaryStep {
        weight: weight(*percent),
        soak: Duration::from_secs(60),
    };
    Strategy::Canary(Split::Steps(weights.iter().map(step).collect()))
}

struct World {
    policy: Policy,
    state: Option<State>,
    mark: Option<RevisionName>,
    observed: Observed,
    /// Seconds since the world began.
    second: i64,
    /// Requests a second.
    rate: u64,
    /// Bad requests of a thousand, by revision; 2 where nothing is said.
    bad: BTreeMap<RevisionName, u64>,
    /// Compared pairs of answers in a look, and how many of them differ.
    pairs: (u64, u64),
    /// Revisions whose pods do not become ready.
    stuck: Vec<RevisionName>,
    counters: BTreeMap<u64, Tally>,
    last: Effects,
    notices: Vec<Notice>,
    /// The candidate's shares, each once.
    shares: Vec<u8>,
}

impl World {
    /// `m-1` serves with four pods.
    fn new(policy: Policy) -> Self {
        let mut world = Self::empty(policy);
        world.mark = Some(rev("m-1"));
        world.set_pods("m-1", 4, 4);
        world.look();
        assert_eq!(world.phase(), Phase::Stable);
        world
    }

    /// Nothing serves yet.
    fn empty(policy: Policy) -> Self {
        let observed = Observed {
            wanted: rev("m-1"),
            health: BTreeMap::new(),
            load: Load {
                planned: None,
                replicas: 4,
            },
            per_replica: BTreeMap::new(),
            readings: Vec::new(),
            complete: true,
            followed: None,
            recent: BTreeMap::from([(Signal::Errors, Count::new(60_000, 120))]),
            slow: None,
            slow_runs: None,
            drift: None,
            signature: Signature::Same,
            golden: Golden::None,
            command: None,
        };
        let nothing = step(&policy, None, None, &observed, Timestamp::UNIX_EPOCH).1;
        Self {
            policy,
            state: None,
            mark: None,
            observed,
            second: 0,
            rate: 100,
            bad: BTreeMap::new(),
            pairs: (50, 0),
            stuck: Vec::new(),
            counters: BTreeMap::new(),
            last: Effects {
                floors: BTreeMap::new(),
                traffic: BTreeMap::new(),
                ..nothing
            },
            notices: Vec::new(),
            shares: Vec::new(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + self.second).expect("a time of our days")
    }

    fn want(&mut self, revision: &str) {
        self.observed.wanted = rev(revision);
    }

    fn command(&mut self, command: &str) {
        self.observed.command = Some(command.into());
    }

    fn set_pods(&mut self, revision: &str, pods: i32, ready: i32) {
        let health = self.observed.health.entry(rev(revision)).or_default();
        health.deployed = true;
        health.pods = pods;
        health.ready = ready;
    }

    fn crash(&mut self, revision: &str) {
        let health = self.observed.health.entry(rev(revision)).or_default();
        health.ready = 0;
        health.cause = Some(Cause {
            reason: "CrashLoopBackOff".into(),
            message: "the server ends with exit code 1".into(),
            exit_code: Some(1),
            class: Class::Terminal,
        });
    }

    fn state(&self) -> &State {
        self.state.as_ref().expect("it was looked at")
    }

    fn phase(&self) -> Phase {
        self.state().phase.clone()
    }

    fn share(&self, revision: &str) -> u8 {
        let share = self.last.traffic.get(&rev(revision));
        share.map_or(0, |weight| weight.percent())
    }

    fn floor(&self, revision: &str) -> Option<u32> {
        self.last.floors.get(&rev(revision)).copied()
    }

    fn told(&self, reason: &str) -> usize {
        self.notices.iter().filter(|n| n.reason == reason).count()
    }

    /// Pods follow the floors; those that start take a look to be ready.
    fn move_pods(&mut self) {
        let floors = self.last.floors.clone();
        for (name, pods) in &floors {
            let health = self.observed.health.entry(name.clone()).or_default();
            let wanted = i32::try_from(*pods).expect("few pods");
            let held = health.cause.is_some() || self.stuck.contains(name);
            health.ready = if held { 0 } else { health.pods.min(wanted) };
            health.pods = wanted;
            health.deployed = true;
        }
        self.observed
            .health
            .retain(|name, _| floors.contains_key(name));
    }

    /// Requests go where the routers send them; those for a revision without pods are held.
    fn serve(&mut self) {
        let Some(generation) = self.observed.followed else {
            return;
        };
        let stable = self.state().stable.clone();
        let all = self.rate * u64::try_from(LOOK).expect("seconds");
        let tally = self.counters.entry(generation).or_default();
        if self.last.mirror.is_some() {
            let (pairs, differ) = self.pairs;
            let sides = tally.entry(Signal::Disagreement).or_default();
            sides.candidate = sides.candidate + Count::new(pairs, differ);
            sides.stable = sides.stable + Count::new(10 * pairs, 0);
        }
        let sides = tally.entry(Signal::Errors).or_default();
        for (name, share) in &self.last.traffic {
            if self.observed.ready(name) == 0 {
                continue;
            }
            let side = match Some(name) == stable.as_ref() {
                true => &mut sides.stable,
                false => &mut sides.candidate,
            };
            side.requests += all * u64::from(share.percent()) / 100;
            let bad = self.bad.get(name).copied().unwrap_or(2);
            // As many as the rate says, without luck.
            side.bad = side.bad.max(side.requests * bad / 1_000);
        }
    }

    /// Time passes, and the operator looks.
    fn tick(&mut self) {
        self.second += LOOK;
        if self.observed.complete {
            self.observed.followed = Some(self.last.generation);
        }
        self.move_pods();
        self.serve();
        self.look();
    }

    fn ticks(&mut self, number: usize) {
        (0..number).for_each(|_| self.tick());
    }

    /// Ticks until it holds; the number of ticks.
    fn until(&mut self, holds: impl Fn(&Self) -> bool) -> usize {
        for number in 0..3_000 {
            if holds(self) {
                return number;
            }
            self.tick();
        }
        panic!("it never held; {:?}", self.state());
    }

    /// The operator looks, and what must always hold is checked.
    fn look(&mut self) {
        let reading = Reading {
            source: "router".into(),
            started: Timestamp::from_second(1_600_000_000).expect("a time"),
            counters: Counters::ByGeneration(self.counters.clone()),
        };
        self.observed.readings = if self.observed.complete {
            vec![reading]
        } else {
            Vec::new()
        };
        let before = self.state.clone();
        // As an operator that was restarted would read it.
        let read = before.as_ref().map(|state| {
            let text = serde_json::to_string(state).expect("it is written");
            serde_json::from_str::<State>(&text).expect("it is read back")
        });
        assert_eq!(read, before, "read back from the status");
        let (state, effects) = self.step(before.clone());
        self.check(before.as_ref(), &state, &effects);
        if effects.stable.is_some() {
            self.mark.clone_from(&effects.stable);
        }
        self.notices.extend(effects.notices.iter().cloned());
        self.last = effects;
        let share = state.routed().percent();
        if self.shares.last() != Some(&share) {
            self.shares.push(share);
        }
        self.state = Some(state);
    }

    fn step(&self, state: Option<State>) -> (State, Effects) {
        step(
            &self.policy,
            state,
            self.mark.as_ref(),
            &self.observed,
            self.now(),
        )
    }

    fn check(&self, before: Option<&State>, state: &State, effects: &Effects) {
        let sum: u32 = effects
            .traffic
            .values()
            .map(|w| u32::from(w.percent()))
            .sum();
        assert!(
            sum == 100 || effects.traffic.is_empty(),
            "{:?}",
            effects.traffic
        );
        let (again, same) = self.step(Some(state.clone()));
        assert_eq!(&again, state, "the same inputs again");
        let quiet = Effects {
            notices: Vec::new(),
            ..effects.clone()
        };
        assert_eq!(same, quiet, "the same inputs again");
        let Some(before) = before else { return };
        let same = before.candidate == state.candidate;
        let Some(candidate) = state.candidate.as_ref().filter(|_| same) else {
            return;
        };
        let stable = state
            .stable
            .as_ref()
            .map_or(0, |name| self.observed.ready(name));
        if state.routed() > before.routed() && stable > 0 {
            let load = Load {
                replicas: self.observed.load.replicas.max(stable),
                ..self.observed.load
            };
            let each = self.observed.per_replica.get(candidate).copied();
            let need = needed(state.routed(), &load, each);
            assert!(self.observed.ready(candidate) >= need, "{state:?}");
        }
    }
}

fn in_step(index: usize, stage: Stage) -> Phase {
    Phase::Step { index, stage }
}

fn failed(world: &World) -> Option<String> {
    match world.phase() {
        Phase::Failed { why, .. } => Some(why.reason),
        _ => None,
    }
}

fn canary() -> World {
    World::new(Policy {
        strategy: steps(&[5, 25, 50]),
        ..Policy::default()
    })
}

/// A canary of `m-2` that is watched in its first step.
fn in_first_step() -> World {
    let mut world = canary();
    world.want("m-2");
    world.until(|w| w.phase() == in_step(0, Stage::Soak));
    assert_eq!(world.share("m-2"), 5);
    world
}

fn serves(world: &World, revision: &str) -> bool {
    world.phase() == Phase::Stable && world.share(revision) == 100
}
