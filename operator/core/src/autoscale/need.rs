//! How many replicas a target needs: the demand by what one replica takes of it.
//!
//! The need is absolute: pods that are still starting never add to it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Config, Sample, State,
    capacity::{self, Source},
    config::Latency,
    units::{float, whole},
    window::Of,
};

/// Time after a start in which requests that have waited should be gone, in seconds.
const MARGIN: f64 = 10.0;
/// A backlog is worked off in this time, in seconds.
const WORKED_OFF: f64 = 10.0;
/// Above the last six seconds when a burst rules: it may still rise, and what waited has to be worked off. Not what makes
/// a burst: a constant load at 0.8 of one or two replicas would be one for ever.
const BURST: f64 = 1.25;
/// Of the capacity that is left after going down.
const ROOM: f64 = 0.9;
/// How long a start takes while none was seen.
const START_UP: Duration = Duration::from_secs(30);

/// Which target needs the most, and what one replica takes of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum By {
    /// Requests a second at the objective.
    Latency {
        /// Which.
        latency: Latency,
        /// Requests a second of one replica, corrected.
        each: f64,
        /// Where that comes from.
        source: Source,
    },
    /// Nothing is learned of the objective yet: requests in flight.
    Unlearned {
        /// Requests in flight of one replica.
        each: f64,
    },
    /// The target of the concurrency.
    Concurrency {
        /// Requests in flight of one replica.
        each: f64,
    },
    /// The target of the rate.
    Rate {
        /// Requests a second of one replica.
        each: f64,
    },
}

impl By {
    /// What one replica takes, and of what.
    #[must_use]
    pub const fn each(self) -> (Of, f64) {
        match self {
            Self::Latency { each, .. } | Self::Rate { each } => (Of::Arrivals, each),
            Self::Unlearned { each } | Self::Concurrency { each } => (Of::InFlight, each),
        }
    }
}

/// What a target needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Need {
    /// By which target.
    pub by: By,
    /// The demand that is planned for.
    pub demand: f64,
    /// Replicas for it.
    pub replicas: u32,
    /// Replicas for the last six seconds and what waits: what makes a burst.
    pub alarm: u32,
    /// What is planned for in a burst.
    pub burst_demand: f64,
    /// Replicas for it.
    pub burst: u32,
    /// Replicas below which it is too soon to go.
    pub room: u32,
    /// Replicas for what waits alone.
    pub backlog: u32,
}

/// What each target needs: never empty, since there is a target.
pub(super) fn needs(config: &Config, state: &State, sample: &Sample) -> Vec<Need> {
    let latency = config.targets.latency().map(|latency| {
        let source = match config.measured {
            Some(rate) if rate.get() > 0.0 => Source::Measured,
            _ => Source::Learned,
        };
        match state.predicted(config) {
            Some(rate) => By::Latency {
                latency,
                each: state.corrected(rate),
                source,
            },
            None => By::Unlearned {
                each: capacity::unlearned(config.server),
            },
        }
    });
    let concurrency = config
        .targets
        .concurrency()
        .map(|each| By::Concurrency { each: float(each) });
    let rate = config
        .targets
        .rate()
        .map(|each| By::Rate { each: each.get() });
    let all = [latency, concurrency, rate].into_iter().flatten();
    all.map(|by| need(by, config, state, sample)).collect()
}

fn need(by: By, config: &Config, state: &State, sample: &Sample) -> Need {
    let (of, each) = by.each();
    let [long, middle, short] = [60.0, 15.0, 6.0].map(|seconds| state.window.mean(of, seconds));
    let ahead = sample.start_up.unwrap_or(START_UP).as_secs_f64() + MARGIN;
    let rising = (middle + state.window.growth(of) * ahead).min(2.0 * middle);
    let demand = long.max(middle).max(rising);
    let waiting = match of {
        Of::Arrivals => backlog(config, sample) / WORKED_OFF,
        // What waits is in flight.
        Of::InFlight => 0.0,
    };
    let waits = match short > 0.0 {
        true => waiting.min(short),
        false => waiting,
    };
    let burst_demand = BURST * (short + waits);
    let alone = match of {
        Of::Arrivals => waiting,
        Of::InFlight => sample.held().saturating_add(sample.in_flight()) as f64,
    };
    Need {
        by,
        demand,
        replicas: whole(demand / each),
        alarm: whole((short + waits) / each),
        burst_demand,
        burst: whole(burst_demand / each),
        room: whole(long.max(middle).max(short) / (ROOM * each)),
        backlog: whole(alone / each),
    }
}

/// Requests that wait at routers, or in pods beyond what those execute at the same time.
fn backlog(config: &Config, sample: &Sample) -> f64 {
    let running = u64::from(sample.replicas.ready) * u64::from(config.server.at_once());
    let queued = sample.in_flight().saturating_sub(running);
    sample.held().saturating_add(queued) as f64
}
