//! From counters to what the last minutes were like.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Config, Sample, State,
    capacity::{self, Learned},
    correction::{Correction, Seen},
    histogram::Histogram,
    sample::Work,
    window::{Look, Of},
};
use crate::rollout::clock::passed;

/// A pod is cold for so long, and until it did so many requests: its caches are.
const COLD: Duration = Duration::from_secs(30);
const COLD_REQUESTS: u64 = 200;
/// Half of what quantiles for the status are taken from.
const ANSWERS: Duration = Duration::from_secs(30);
/// Half of what a capacity is learned from: the model does not change, its inputs do.
const WORK: Duration = Duration::from_secs(300);
/// How often the correction is looked at, and for how long nothing must have changed.
const CORRECTED: Duration = Duration::from_secs(30);
const SETTLED: Duration = Duration::from_secs(60);

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Whether every router and at least half of the pods were heard of.
    pub complete: bool,
    /// Whether something came, waits or is in flight.
    pub asked: bool,
}

impl State {
    /// Takes in a sample.
    pub(super) fn measure(&mut self, config: &Config, sample: &Sample, now: Timestamp) -> Heard {
        self.follow(config);
        let seconds = self.at.map_or(0.0, |at| passed(at, now).as_secs_f64());
        self.at = Some(now);
        let arrivals = self.read_routers(config, sample, seconds, now);
        self.read_pods(sample, now);
        self.routers.forget(now);
        self.pods.forget(now);
        let heard = Heard {
            complete: sample.heard_all_routers() && sample.heard_half_of_the_pods(),
            asked: arrivals.is_some_and(|arrivals| arrivals > 0.0)
                || sample.held() > 0
                || sample.in_flight() > 0,
        };
        // Quiet is known only where all data is: `None` of the first look is none.
        let quiet = heard.complete && !heard.asked && arrivals.is_some();
        self.quiet = match (quiet, self.quiet) {
            (false, _) => None,
            (true, since) => since.or(Some(now)),
        };
        heard
    }

    /// What was learned for another objective is worth nothing.
    fn follow(&mut self, config: &Config) {
        let latency = config.targets.latency();
        if self.latency != latency {
            self.latency = latency;
            self.kept.correction = Correction::default();
        }
        self.kept.learned = self
            .kept
            .learned
            .filter(|learned| Some(learned.latency) == latency);
    }

    /// What came since the last look; `None` where no router has two readings.
    fn read_routers(
        &mut self,
        config: &Config,
        sample: &Sample,
        seconds: f64,
        now: Timestamp,
    ) -> Option<f64> {
        let (mut arrivals, mut ended, mut heard) = (0.0, Histogram::default(), false);
        for router in &sample.routers {
            let Some((grown, over)) =
                self.routers
                    .read(&router.name, router.started, &router.counts, now)
            else {
                continue;
            };
            heard = true;
            // What came while it was not heard of did not come within this look.
            let part = (seconds / over.as_secs_f64()).min(1.0);
            arrivals += part * grown.arrivals as f64;
            ended += &grown.latency;
        }
        if !heard || seconds <= 0.0 {
            return None;
        }
        let slower = config
            .targets
            .latency()
            .map_or(0, |latency| ended.above(latency.objective));
        let in_flight = sample.in_flight().saturating_add(sample.held());
        let look = Look {
            seconds,
            arrivals,
            in_flight: in_flight as f64 * seconds,
            ended: ended.total(),
            slower,
        };
        self.window.push(look, now);
        self.answers.add(&ended, ANSWERS, now);
        let rate = self.window.mean(Of::Arrivals, 6.0);
        self.bursts.push(rate, seconds, now);
        Some(arrivals)
    }

    fn read_pods(&mut self, sample: &Sample, now: Timestamp) {
        let mut done = Work::default();
        for pod in &sample.pods {
            let counts = Work {
                batches: pod.counts.batches.sound(),
                service: pod.counts.service.clone(),
            };
            let read = self.pods.read(&pod.name, pod.started, &counts, now);
            let cold =
                passed(pod.ready_since, now) < COLD || pod.counts.service.total() < COLD_REQUESTS;
            if let Some((grown, _)) = read
                && !cold
            {
                done += &grown;
            }
        }
        self.work.add(&done, WORK, now);
    }

    /// Learns what one replica carries, and corrects it.
    pub(super) fn learn(&mut self, config: &Config, sample: &Sample, now: Timestamp) {
        let Some(latency) = config.targets.latency() else {
            return;
        };
        let before = self.kept.learned;
        let work = self.work.sum();
        let learned = capacity::learn(config.server, latency, &work, before.as_ref());
        self.kept.learned = learned.or(before);
        self.correct(config, sample, now);
    }

    fn correct(&mut self, config: &Config, sample: &Sample, now: Timestamp) {
        let wish = self.kept.wish;
        let settled = passed(self.changed, now) >= SETTLED
            && Some(sample.replicas.ready) == wish
            && !self.panics(now);
        // What no number of replicas helps says nothing of what one carries.
        let beyond = self.kept.learned.and_then(|learned| learned.limit);
        let beyond = matches!(beyond, Some(capacity::Limit::Unattainable { .. }));
        if !settled || beyond || passed(self.corrected, now) < CORRECTED {
            return;
        }
        let Some((latency, rate)) = config.targets.latency().zip(self.predicted(config)) else {
            return;
        };
        self.corrected = now;
        let (requests, slower) = self.window.ended();
        let carried = f64::from(sample.replicas.ready) * self.corrected(rate);
        self.kept.correction = self.kept.correction.after(&Seen {
            requests,
            slower,
            budget: latency.percentile.budget(),
            unavoidable: self.kept.learned.map_or(0.0, |learned| learned.unavoidable),
            load: self.window.mean(Of::Arrivals, 60.0) / carried,
        });
    }

    /// What a predicted rate is corrected to.
    pub(super) fn corrected(&self, rate: f64) -> f64 {
        let most = self
            .kept
            .learned
            .map_or(f64::MAX, |learned| learned.most.get());
        (rate * self.kept.correction.factor()).min(most.max(rate))
    }

    /// Requests a second that one replica carries, before the correction.
    pub(super) fn predicted(&self, config: &Config) -> Option<f64> {
        let learned = |learned: Learned| learned.rate.get();
        let measured = config.measured.map(super::PerSecond::get);
        measured
            .filter(|rate| *rate > 0.0)
            .or(self.kept.learned.map(learned))
    }
}
