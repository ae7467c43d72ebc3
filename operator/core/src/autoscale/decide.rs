//! One look, one decision.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Condition, Config, Decision, Figures, PerSecond, Reason, Sample, State,
    capacity::Limit,
    correction::Share,
    decision::{Bound, Why},
    limits,
    measure::Heard,
    need::{By, Need, needs},
    rest::{Quiet, Rest},
    window::Of,
};
use crate::rollout::clock::passed;

/// How long a burst rules after it was last seen.
const PANIC: Duration = Duration::from_secs(60);
/// A burst is one that needs so many times the ready replicas.
const PANIC_FACTOR: f64 = 1.5;
/// How long what was expected holds: as long as a burst.
const EXPECTED: Duration = PANIC;
/// Pods that no node takes for so long do not become more.
const UNSCHEDULABLE: Duration = Duration::from_secs(120);

/// Decides how many replicas there should be.
#[must_use]
pub fn decide(
    config: &Config,
    mut state: State,
    sample: &Sample,
    now: Timestamp,
) -> (State, Decision) {
    let current = state.kept.wish.unwrap_or(sample.replicas.wanted);
    let heard = state.measure(config, sample, now);
    state.learn(config, sample, now);
    let mut turn = Turn {
        config,
        sample,
        now,
        heard,
        current,
        needs: needs(config, &state, sample),
        state,
    };
    let was = turn.state.kept.rest;
    let rest = turn.rest();
    let (to, why, bound) = match (was, rest) {
        (_, Rest::Asleep) => {
            turn.state.panic = None;
            (0, Why::Idle, None)
        }
        (Rest::Asleep, _) => turn.wake(),
        _ => turn.awake(),
    };
    turn.finish(to, why, bound)
}

/// One look.
struct Turn<'a> {
    config: &'a Config,
    sample: &'a Sample,
    now: Timestamp,
    heard: Heard,
    /// What was decided last, pods that start included.
    current: u32,
    needs: Vec<Need>,
    state: State,
}

impl Turn<'_> {
    fn rest(&mut self) -> Rest {
        let idle = self.config.idle.filter(|_| self.config.bounds.may_sleep());
        let quiet = Quiet {
            idle,
            start_up: self.sample.start_up,
            since: self.state.quiet,
            asked: self.heard.asked,
            rollout: self.sample.rollout,
        };
        let rest = self.state.kept.rest.next(&quiet, self.now);
        self.state.kept.rest = rest;
        rest
    }

    /// At once, for what waits.
    fn wake(&mut self) -> (u32, Why, Option<Bound>) {
        let waits = self.needs.iter().map(|need| need.backlog);
        let needed = waits.max().unwrap_or(0);
        self.remember(needed);
        let (to, bound) = self.bounded(needed, None);
        let held = self.sample.held();
        (to, Why::Woken { held }, bound)
    }

    fn awake(&mut self) -> (u32, Why, Option<Bound>) {
        let (wanted, why) = self.wanted();
        let room = self.needs.iter().map(|need| need.room).max();
        self.remember(room.unwrap_or(0));
        self.expect(wanted);
        let (to, why) = match wanted > self.current {
            true => (wanted, why),
            false => self.fewer(wanted, why),
        };
        let (to, bound) = self.stepped(to);
        let (to, bound) = self.scheduled(to, bound);
        let (to, bound) = self.bounded(to, bound);
        (to, why, bound)
    }

    /// What is needed now, by the target that needs the most.
    fn wanted(&mut self) -> (u32, Why) {
        let ready = self.sample.replicas.ready;
        let alarm = self.needs.iter().map(|need| need.alarm).max().unwrap_or(0);
        if f64::from(alarm) >= PANIC_FACTOR * f64::from(ready) && alarm > ready {
            self.state.panic = self.now.checked_add(PANIC).ok();
        }
        let panics = self.state.panics(self.now);
        let each = self.needs.iter().flat_map(|need| {
            let demand = Why::Demand {
                demand: need.demand,
                needed: need.replicas,
                by: need.by,
            };
            let burst = Why::Burst {
                demand: need.burst_demand,
                needed: need.burst,
                by: need.by,
            };
            let burst = panics.then_some((need.burst, burst));
            [Some((need.replicas, demand)), burst].into_iter().flatten()
        });
        // Of equal ones the first: the latency, by its demand.
        let mut all = each.collect::<Vec<_>>().into_iter().rev();
        let last = all.next().unwrap_or((0, Why::Idle));
        all.fold(last, |most, next| match next.0 >= most.0 {
            true => next,
            false => most,
        })
    }

    /// What is needed is remembered; while data is missing, all that runs may be.
    fn remember(&mut self, needed: u32) {
        let needed = match self.heard.complete {
            true => needed,
            false => needed.max(self.current),
        };
        let window = self.config.behavior.stabilization;
        let needed = needed.min(self.config.bounds.most());
        self.state.hold.push(needed, window, self.now);
        self.state.kept.hold = self.state.hold.most();
    }

    /// What a trend or a burst lets expect is remembered for a minute only: it came, or it did not.
    fn expect(&mut self, wanted: u32) {
        let window = EXPECTED.min(self.config.behavior.stabilization);
        self.state.brief.push(wanted, window, self.now);
    }

    /// Whether there may be fewer.
    fn fewer(&self, needed: u32, why: Why) -> (u32, Why) {
        let Self {
            current, sample, ..
        } = *self;
        let window = self.config.behavior.stabilization;
        let most = self.state.hold.most().max(self.state.brief.most());
        let least = self.config.bounds.least();
        if needed == current || current <= least {
            return (current, why);
        }
        if !self.heard.complete {
            let count = |many: usize| u32::try_from(many).unwrap_or(u32::MAX);
            let why = Why::NoData {
                routers: count(sample.routers.len()),
                of_routers: sample.expected_routers,
                pods: count(sample.pods.len()),
                of_pods: sample.replicas.ready,
            };
            return (current, why);
        }
        if passed(self.state.since, self.now) < window {
            return (current, Why::Restarted { window });
        }
        match most < current && !self.state.panics(self.now) {
            true => (
                most.max(least),
                Why::Less {
                    needed,
                    most,
                    window,
                },
            ),
            false => (
                current,
                Why::Held {
                    needed,
                    most,
                    window,
                },
            ),
        }
    }

    /// No further at once than may be.
    fn stepped(&mut self, to: u32) -> (u32, Option<Bound>) {
        let Self { current, now, .. } = *self;
        let behavior = self.config.behavior;
        if to > current {
            let (most, anchor) = limits::ceiling(self.state.up, current, behavior.up, now);
            self.state.up = Some(anchor);
            let bound = (to > most).then_some(Bound::Step(behavior.up));
            (to.min(most), bound)
        } else if to < current {
            let (least, anchor) = limits::floor(self.state.down, current, behavior.down, now);
            self.state.down = Some(anchor);
            let bound = (to < least).then_some(Bound::Step(behavior.down));
            (to.max(least), bound)
        } else {
            (to, None)
        }
    }

    /// No more than nodes take, and one more to see whether they do again.
    fn scheduled(&self, to: u32, bound: Option<Bound>) -> (u32, Option<Bound>) {
        let Some(scheduled) = self.unschedulable() else {
            return (to, bound);
        };
        let most = match self.heard.complete {
            true => scheduled.saturating_add(1),
            // Pods that wait are taken back with all data, as those that run are.
            false => scheduled.saturating_add(1).max(self.current),
        };
        match to > most {
            true => (most, Some(Bound::Nodes { scheduled })),
            false => (to, bound),
        }
    }

    /// How many pods have a node, where others have waited for one for long.
    fn unschedulable(&self) -> Option<u32> {
        let waiting = self.sample.replicas.unschedulable?;
        (passed(waiting.since, self.now) > UNSCHEDULABLE).then_some(waiting.scheduled)
    }

    fn bounded(&self, to: u32, bound: Option<Bound>) -> (u32, Option<Bound>) {
        let bounds = self.config.bounds;
        let (least, most) = (bounds.least(), bounds.most());
        match to {
            _ if to > most => (most, Some(Bound::Most(most))),
            // One replica without any load is not worth a word.
            _ if to < least => (least, (least > 1).then_some(Bound::Least(least))),
            _ => (to, bound),
        }
    }

    fn finish(mut self, to: u32, why: Why, bound: Option<Bound>) -> (State, Decision) {
        if to != self.current {
            self.state.changed = self.now;
        }
        self.state.kept.wish = Some(to);
        let decision = Decision {
            replicas: to,
            reason: Reason {
                from: self.current,
                to,
                why,
                bound,
            },
            rest: self.state.kept.rest,
            conditions: self.conditions(to),
            figures: self.figures(),
        };
        (self.state, decision)
    }

    fn carries(&self) -> Option<PerSecond> {
        self.needs.iter().find_map(|need| match need.by {
            By::Latency { each, .. } => PerSecond::new(each),
            _ => None,
        })
    }

    fn conditions(&self, to: u32) -> Vec<Condition> {
        let learned = self.state.kept.learned;
        let objective = learned.and_then(|learned| {
            Some(match learned.limit? {
                Limit::Unattainable { floor } => Condition::SloUnattainable {
                    latency: learned.latency,
                    floor,
                },
                Limit::NearFloor => Condition::SloNearFloor {
                    latency: learned.latency,
                    unavoidable: learned.unavoidable,
                },
            })
        });
        let needed = self
            .needs
            .iter()
            .map(|need| need.replicas)
            .max()
            .unwrap_or(0);
        let available = match self.unschedulable() {
            Some(scheduled) => scheduled.min(self.config.bounds.most()),
            None => self.config.bounds.most(),
        };
        let constrained =
            (needed > available).then_some(Condition::CapacityConstrained { needed, available });
        let risk = self
            .state
            .bursts
            .rate()
            .zip(self.carries())
            .and_then(|(burst, each)| {
                let carried = PerSecond::new(f64::from(to) * each.get())?;
                (burst > carried).then_some(Condition::BurstRisk { burst, carried })
            });
        [objective, constrained, risk]
            .into_iter()
            .flatten()
            .collect()
    }

    fn figures(&self) -> Figures {
        let answers = self.state.answers.sum();
        let (ended, slower) = self.state.window.ended();
        Figures {
            requests: PerSecond::new(self.state.window.mean(Of::Arrivals, 60.0))
                .unwrap_or_default(),
            capacity: self.carries(),
            correction: self.state.kept.correction.factor(),
            slower: Share::of(slower, ended),
            p50: answers.quantile(0.5),
            p95: answers.quantile(0.95),
            p99: answers.quantile(0.99),
        }
    }
}
