//! What was decided, and why: a number, a sentence, conditions, and figures for the status.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    capacity::Source,
    config::{Latency, Step},
    correction::Share,
    need::By,
    rest::Rest,
    units::{PerSecond, Short},
};

/// What was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// How many pods there should be, those that start included.
    pub replicas: u32,
    /// Why.
    pub reason: Reason,
    /// Whether routers hold requests, and whether anything runs.
    pub rest: Rest,
    /// What a person should know.
    pub conditions: Vec<Condition>,
    /// What was seen.
    pub figures: Figures,
}

/// A sentence: from how many to how many, and why.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// Replicas before.
    pub from: u32,
    /// Replicas now.
    pub to: u32,
    /// Why.
    pub why: Why,
    /// What kept it from being what is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
}

/// Why so many.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Why {
    /// The demand needs so many.
    Demand {
        /// The demand that is planned for.
        demand: f64,
        /// Replicas for it.
        needed: u32,
        /// By which target.
        by: By,
    },
    /// A burst needs so many.
    Burst {
        /// The demand of the burst.
        demand: f64,
        /// Replicas for it.
        needed: u32,
        /// By which target.
        by: By,
    },
    /// Fewer would do, but not for long enough.
    Held {
        /// Replicas that would do.
        needed: u32,
        /// The most that was needed within the window.
        most: u32,
        /// The window.
        window: Duration,
    },
    /// Fewer would do, for long enough.
    Less {
        /// Replicas that would do.
        needed: u32,
        /// The most that was needed within the window.
        most: u32,
        /// The window.
        window: Duration,
    },
    /// Fewer may do, but data is missing.
    NoData {
        /// Routers that were heard of.
        routers: u32,
        /// Routers.
        of_routers: u32,
        /// Pods whose metrics were read.
        pods: u32,
        /// Ready pods.
        of_pods: u32,
    },
    /// Fewer may do, but what came before the operator's start is not known.
    Restarted {
        /// The window.
        window: Duration,
    },
    /// Nobody asks anything.
    Idle,
    /// Requests wait for the service to wake.
    Woken {
        /// How many.
        held: u64,
    },
}

/// What kept replicas from being what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Bound {
    /// `minReplicas`.
    Least(u32),
    /// `maxReplicas`.
    Most(u32),
    /// So much within a time.
    Step(Step),
    /// Nodes take no more.
    Nodes {
        /// Pods that have a node.
        scheduled: u32,
    },
}

impl Reason {
    /// One word, for events, logs and metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self.why {
            Why::Demand { .. } => "Demand",
            Why::Burst { .. } => "Burst",
            Why::Held { .. } => "Held",
            Why::Less { .. } => "Less",
            Why::NoData { .. } => "NoData",
            Why::Restarted { .. } => "Restarted",
            Why::Idle => "Idle",
            Why::Woken { .. } => "Woken",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from == self.to {
            true => write!(f, "{}: ", self.to)?,
            false => write!(f, "{} → {}: ", self.from, self.to)?,
        }
        write!(f, "{}", self.why)?;
        match self.bound {
            None => Ok(()),
            Some(Bound::Least(least)) => write!(f, ", minReplicas is {least}"),
            Some(Bound::Most(most)) => write!(f, ", maxReplicas is {most}"),
            Some(Bound::Step(Step { percent, period })) => {
                write!(f, ", at most {percent} % in {}", Time(period))
            }
            Some(Bound::Nodes { scheduled }) => write!(f, ", nodes take no more than {scheduled}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Demand { demand, needed, by } => needs(f, "", demand, needed, by),
            Self::Burst { demand, needed, by } => needs(f, "a burst of ", demand, needed, by),
            Self::Held {
                needed,
                most,
                window,
            }
            | Self::Less {
                needed,
                most,
                window,
            } => write!(
                f,
                "{needed} would do now, the most of the last {} was {most}",
                Time(window)
            ),
            Self::NoData {
                routers,
                of_routers,
                pods,
                of_pods,
            } => write!(
                f,
                "not fewer while data is missing ({routers} of {of_routers} routers and {pods} of {of_pods} pods were heard of)"
            ),
            Self::Restarted { window } => write!(
                f,
                "not fewer until the load has been watched for {}",
                Time(window)
            ),
            Self::Idle => write!(f, "nobody asks anything"),
            Self::Woken { held: 1 } => write!(f, "1 request waits"),
            Self::Woken { held } => write!(f, "{held} requests wait"),
        }
    }
}

fn needs(f: &mut fmt::Formatter<'_>, what: &str, demand: f64, needed: u32, by: By) -> fmt::Result {
    let demand = Short(demand);
    match by {
        By::Latency {
            latency,
            each,
            source,
        } => {
            let source = match source {
                Source::Measured => "measured",
                Source::Learned => "learned",
            };
            write!(
                f,
                "{what}{demand} rps needs {needed} at {latency} (1 replica carries {} rps, {source})",
                Short(each)
            )
        }
        By::Rate { each } => write!(
            f,
            "{what}{demand} rps needs {needed} at {} each",
            Short(each)
        ),
        By::Concurrency { each } => write!(
            f,
            "{what}{demand} in flight needs {needed} at {} each",
            Short(each)
        ),
        By::Unlearned { each } => write!(
            f,
            "{what}{demand} in flight needs {needed} at {} each, until it is learned what a replica carries",
            Short(each)
        ),
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ≤ {}", self.percentile, Time(self.objective))
    }
}

/// A time in a sentence.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds {
            short if short < 1.0 => write!(f, "{} ms", Short(short * 1e3)),
            long if long >= 60.0 && long % 60.0 == 0.0 => write!(f, "{} min", long / 60.0),
            middle => write!(f, "{} s", Short(middle)),
        }
    }
}

/// What a person should know.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Condition {
    /// The service time itself is above the objective.
    SloUnattainable {
        /// The objective.
        latency: Latency,
        /// The percentile of the service time.
        floor: Duration,
    },
    /// The objective is hardly above the service time.
    SloNearFloor {
        /// The objective.
        latency: Latency,
        /// The share of requests whose service alone is slower.
        unavoidable: f64,
    },
    /// Fewer run than are needed.
    CapacityConstrained {
        /// How many are needed.
        needed: u32,
        /// How many have a node, or may run.
        available: u32,
    },
    /// Bursts of the last hour are more than the replicas carry.
    BurstRisk {
        /// Requests a second of a burst.
        burst: PerSecond,
        /// Requests a second that the replicas carry.
        carried: PerSecond,
    },
}

impl Condition {
    /// One word, for the condition and metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::SloUnattainable { .. } => "SLOUnattainable",
            Self::SloNearFloor { .. } => "SLONearFloor",
            Self::CapacityConstrained { .. } => "CapacityConstrained",
            Self::BurstRisk { .. } => "BurstRisk",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SloUnattainable { latency, floor } => write!(
                f,
                "{latency} cannot be kept by any number of replicas: the {} of the service time alone is {}",
                latency.percentile,
                Time(floor)
            ),
            Self::SloNearFloor {
                latency,
                unavoidable,
            } => write!(
                f,
                "{latency} is hardly above the service time: {:.1} % of the requests are slower without any queue",
                100.0 * unavoidable
            ),
            Self::CapacityConstrained { needed, available } => {
                write!(f, "{needed} replicas are needed, and {available} can run")
            }
            Self::BurstRisk { burst, carried } => write!(
                f,
                "bursts of the last hour came to {burst}, and the replicas carry {carried}; a higher minReplicas would have room for them"
            ),
        }
    }
}

/// What was seen, for the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Requests a second of the last minute.
    pub requests: PerSecond,
    /// What one replica carries at the objective, corrected; `None` while that is not known.
    pub capacity: Option<PerSecond>,
    /// By what the predicted capacity is multiplied.
    pub correction: f64,
    /// Requests of the last minute that were slower than the objective.
    pub slower: Option<Share>,
    /// Latency that half of the last requests kept within.
    pub p50: Option<Duration>,
    /// The same of 95 %.
    pub p95: Option<Duration>,
    /// The same of 99 %.
    pub p99: Option<Duration>,
}
