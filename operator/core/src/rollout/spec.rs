//! The policy of a rollout from `spec.rollout`: every default filled in, and what the platform cannot do refused.

use std::time::Duration;

use ortolan_crds::{self as crds, InferenceServiceSpec, Rollout, parse_latency};
use ortolan_stats::latency;

use super::{
    evidence::Signal,
    policy::{Analysis, Approval, CanaryStep, OnInconclusive, Policy, Split, Strategy, Weight},
};
use crate::validate::parse_duration;

/// Who can give revisions shares of the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Splitter {
    /// Nobody: a Service selects the pods of one revision.
    Nobody,
    /// The routers, which count requests, too.
    Routers,
    /// Gateways, by weights in routes. Nobody counts.
    Gateways,
}

impl Splitter {
    /// Of this service; `routers`: whether there are any.
    #[must_use]
    pub fn of(spec: &InferenceServiceSpec, routers: bool) -> Self {
        let routing = spec.routing.as_ref();
        match routing.is_some_and(ortolan_crds::Routing::is_split_by_gateways) {
            true => Self::Gateways,
            false if routers => Self::Routers,
            false => Self::Nobody,
        }
    }
}

/// What an answer may take at most: beyond the last bound of the routers' histogram nothing is told apart.
const LATENCIES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(60);

/// What cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Only routers split traffic.
    #[error(
        "rollout.{0} needs routers, and the platform has none: leave it out, or install the chart with router.enabled=true"
    )]
    NeedsRouters(&'static str),
    /// Only routers count.
    #[error(
        "rollout.{0} goes by what the routers count, and with routing.provider: GatewayAPI requests do not pass them: leave it out and write rollout.weight to set the share by hand, or strategy: BlueGreen; or write routing.provider: Router"
    )]
    NeedsCounts(&'static str),
    /// A duration that cannot be read.
    #[error("rollout.{0} is {1:?}: write a duration such as 2m or 1h")]
    Duration(&'static str, String),
    /// A share that is none.
    #[error("rollout.{0} is {1}: write a share of the traffic from 0 to 100")]
    Weight(&'static str, i32),
    /// Shares that do not rise.
    #[error(
        "rollout.steps has a weight of {1} after {0}: each step's weight must be larger than that of the step before it"
    )]
    Order(u8, u8),
    /// A part of the requests that is none.
    #[error("rollout.shadow.percent is {0}: write a share of the requests from 1 to 100")]
    Percent(i32),
    /// A time that is none.
    #[error(
        "rollout.analysis.maxLatency is {0:?}: write a time from 1ms to 60s, such as 250ms or 2s"
    )]
    Latency(String),
    /// A share of answers that is none.
    #[error(
        "rollout.shadow.compare.maxDisagreement is {0}: write a share from 0 to 0.5, such as 0.01"
    )]
    Disagreement(String),
    /// A number outside of its range.
    #[error("rollout.analysis.{0} is {1}: write a number {2}")]
    Number(&'static str, String, &'static str),
}

/// The policy.
///
/// # Errors
/// [`Invalid`]: fields that need routers where there are none, or where requests do not pass them, and what an older schema let through.
pub fn policy(spec: &InferenceServiceSpec, splitter: Splitter) -> Result<Policy, Invalid> {
    let rollout = spec.rollout.clone().unwrap_or_default();
    match splitter {
        Splitter::Routers => {}
        Splitter::Nobody => {
            needs_routers(&rollout).map_or(Ok(()), |field| Err(Invalid::NeedsRouters(field)))?
        }
        Splitter::Gateways => {
            needs_counts(&rollout).map_or(Ok(()), |field| Err(Invalid::NeedsCounts(field)))?;
        }
    }
    let counts = splitter != Splitter::Gateways;
    let defaults = Policy::default();
    let approval = match rollout.approval.unwrap_or_default() {
        crds::Approval::Automatic => Approval::Automatic,
        crds::Approval::Manual => Approval::Manual,
    };
    Ok(Policy {
        strategy: strategy(&rollout, splitter)?,
        paused: rollout.paused.unwrap_or(false),
        suspended: spec.suspended(),
        approval,
        shadow: rollout.shadow.as_ref().map(copies).transpose()?,
        analysis: {
            let written = rollout.analysis.clone().unwrap_or_default();
            let mut analysis = analysis(&written, rollout.shadow.as_ref())?;
            analysis.signals.retain(|_| counts);
            analysis
        },
        counts,
        rollback_window: duration(
            "rollbackWindow",
            rollout.rollback_window.as_ref(),
            defaults.rollback_window,
        )?,
        ..defaults
    })
}

/// The first field that only routers can obey.
fn needs_routers(rollout: &Rollout) -> Option<&'static str> {
    let fields = [
        (
            "strategy: Canary",
            rollout.strategy == Some(crds::Strategy::Canary),
        ),
        ("steps", !rollout.steps.is_empty()),
        ("weight", rollout.weight.is_some()),
        ("paused", rollout.paused == Some(true)),
        (
            "approval: Manual",
            rollout.approval == Some(crds::Approval::Manual),
        ),
        ("analysis", rollout.analysis.is_some()),
        ("validation", rollout.validation.is_some()),
        ("shadow", rollout.shadow.is_some()),
        ("rollbackWindow", rollout.rollback_window.is_some()),
    ];
    let mut set = fields.into_iter().filter(|(_, is_set)| *is_set);
    set.next().map(|(field, _)| field)
}

/// The first field that takes counts.
fn needs_counts(rollout: &Rollout) -> Option<&'static str> {
    let analysis = rollout.analysis.clone().unwrap_or_default();
    let is_canary = rollout.strategy == Some(crds::Strategy::Canary);
    let fields = [
        ("steps", !rollout.steps.is_empty()),
        (
            "strategy: Canary without a weight",
            is_canary && rollout.weight.is_none(),
        ),
        ("shadow", rollout.shadow.is_some()),
        ("analysis.confidence", analysis.confidence.is_some()),
        (
            "analysis.maxErrorRateRatio",
            analysis.max_error_rate_ratio.is_some(),
        ),
        ("analysis.maxLatency", analysis.max_latency.is_some()),
        ("analysis.minRequests", analysis.min_requests.is_some()),
        (
            "analysis.onInconclusive",
            analysis.on_inconclusive.is_some(),
        ),
    ];
    let mut set = fields.into_iter().filter(|(_, is_set)| *is_set);
    set.next().map(|(field, _)| field)
}

fn strategy(rollout: &Rollout, splitter: Splitter) -> Result<Strategy, Invalid> {
    let default = match splitter {
        Splitter::Routers => crds::Strategy::Canary,
        Splitter::Gateways if rollout.weight.is_some() => crds::Strategy::Canary,
        Splitter::Gateways | Splitter::Nobody => crds::Strategy::BlueGreen,
    };
    Ok(match rollout.strategy.unwrap_or(default) {
        crds::Strategy::BlueGreen => Strategy::BlueGreen,
        crds::Strategy::Recreate => Strategy::Recreate,
        crds::Strategy::Canary => match (rollout.weight, rollout.steps.is_empty()) {
            (Some(percent), _) => Strategy::Canary(Split::Weight(weight("weight", percent)?)),
            (None, true) => Policy::default().strategy,
            (None, false) => Strategy::Canary(Split::Steps(steps(rollout)?)),
        },
    })
}

fn steps(rollout: &Rollout) -> Result<Vec<CanaryStep>, Invalid> {
    let mut last = Weight::NONE;
    let read = |step: &crds::Step| {
        let next = weight("steps[].weight", step.weight)?;
        if next <= last {
            return Err(Invalid::Order(last.percent(), next.percent()));
        }
        last = next;
        let soak = duration("steps[].soak", Some(&step.soak), Duration::ZERO)?;
        Ok(CanaryStep { weight: next, soak })
    };
    rollout.steps.iter().map(read).collect()
}

/// Of a hundred requests, so many are copied.
fn copies(shadow: &crds::Shadow) -> Result<u8, Invalid> {
    let percent = u8::try_from(shadow.percent).ok();
    percent
        .filter(|percent| (1..=100).contains(percent))
        .ok_or(Invalid::Percent(shadow.percent))
}

fn analysis(written: &crds::Analysis, shadow: Option<&crds::Shadow>) -> Result<Analysis, Invalid> {
    let defaults = Analysis::default();
    let disagreement = shadow.and_then(|shadow| shadow.compare.max_disagreement);
    let max_disagreement = disagreement.unwrap_or(defaults.max_disagreement);
    if !(0.0..=0.5).contains(&max_disagreement) {
        return Err(Invalid::Disagreement(max_disagreement.to_string()));
    }
    let confidence = written.confidence.unwrap_or(defaults.confidence);
    if !(0.5..=0.9999).contains(&confidence) {
        let number = confidence.to_string();
        return Err(Invalid::Number("confidence", number, "from 0.5 to 0.9999"));
    }
    let ratio = written
        .max_error_rate_ratio
        .unwrap_or(defaults.max_error_rate_ratio);
    if !(1.0..=100.0).contains(&ratio) {
        let number = ratio.to_string();
        return Err(Invalid::Number(
            "maxErrorRateRatio",
            number,
            "from 1 to 100",
        ));
    }
    let max_latency = match &written.max_latency {
        None => None,
        Some(text) => Some(
            parse_latency(text)
                .filter(|time| LATENCIES.contains(time))
                .map(bucket)
                .ok_or_else(|| Invalid::Latency(text.clone()))?,
        ),
    };
    let min_requests = match written.min_requests {
        None => defaults.min_requests,
        Some(count) => u64::try_from(count)
            .map_err(|_| Invalid::Number("minRequests", count.to_string(), "of at least 0"))?,
    };
    let deadline = duration(
        "analysis.deadline",
        written.deadline.as_ref(),
        defaults.deadline,
    )?;
    let settle = duration("analysis.settle", written.settle.as_ref(), defaults.settle)?;
    Ok(Analysis {
        confidence,
        max_error_rate_ratio: ratio,
        max_disagreement,
        max_latency,
        min_requests,
        on_inconclusive: match written.on_inconclusive.unwrap_or_default() {
            crds::OnInconclusive::Pause => OnInconclusive::Pause,
            crds::OnInconclusive::Abort => OnInconclusive::Abort,
            crds::OnInconclusive::Continue => OnInconclusive::Continue,
        },
        deadline,
        settle,
        signals: [
            Signal::Errors,
            Signal::SlowerThanStable,
            Signal::ServiceTime,
        ]
        .into_iter()
        .chain(max_latency.map(|_| Signal::SlowerThanSlo))
        .chain(shadow.map(|_| Signal::Disagreement))
        .collect(),
    })
}

/// The bucket of times whose bound is nearest.
fn bucket(time: Duration) -> u16 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    u16::try_from(latency::nearest(micros)).unwrap_or(u16::MAX)
}

fn weight(field: &'static str, percent: i32) -> Result<Weight, Invalid> {
    let weight = u8::try_from(percent).ok().and_then(Weight::new);
    weight.ok_or(Invalid::Weight(field, percent))
}

fn duration(
    field: &'static str,
    text: Option<&String>,
    default: Duration,
) -> Result<Duration, Invalid> {
    let Some(text) = text else {
        return Ok(default);
    };
    parse_duration(text).ok_or_else(|| Invalid::Duration(field, text.clone()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    fn of(rollout: Value, routers: bool) -> Result<Policy, Invalid> {
        let spec = json!({"model": {"uri": "https://a/m.onnx"}, "rollout": rollout});
        let splitter = match routers {
            true => Splitter::Routers,
            false => Splitter::Nobody,
        };
        policy(&serde_json::from_value(spec).expect("a spec"), splitter)
    }

    fn by_gateways(rollout: Value) -> Result<Policy, Invalid> {
        let spec = json!({"model": {"uri": "https://a/m.onnx"}, "rollout": rollout, "routing": {
            "provider": "GatewayAPI", "gateway": {"parentRefs": [{"name": "g"}]},
        }});
        let spec = serde_json::from_value(spec).expect("a spec");
        policy(&spec, Splitter::of(&spec, true))
    }

    #[test]
    fn gateways_split_by_hand_or_all_at_once_and_refuse_what_takes_counts() {
        let twenty = Weight::new(20).expect("in range");
        for (rollout, strategy) in [
            (json!({}), Strategy::BlueGreen),
            (
                json!({"strategy": "BlueGreen", "approval": "Manual", "paused": true}),
                Strategy::BlueGreen,
            ),
            (
                json!({"strategy": "Recreate", "rollbackWindow": "5m"}),
                Strategy::Recreate,
            ),
            (
                json!({"weight": 20}),
                Strategy::Canary(Split::Weight(twenty)),
            ),
            (
                json!({"strategy": "Canary", "weight": 20}),
                Strategy::Canary(Split::Weight(twenty)),
            ),
            (
                json!({"analysis": {"settle": "20s", "deadline": "5m"}}),
                Strategy::BlueGreen,
            ),
        ] {
            let policy = by_gateways(rollout.clone()).expect("valid");
            assert_eq!(policy.strategy, strategy, "{rollout}");
            assert!(!policy.counts && policy.analysis.signals.is_empty());
        }
        for (rollout, field) in [
            (json!({"steps": [{"weight": 5, "soak": "1m"}]}), "steps"),
            (
                json!({"strategy": "Canary"}),
                "strategy: Canary without a weight",
            ),
            (
                json!({"shadow": {"percent": 5, "compare": {"kind": "Exact"}}}),
                "shadow",
            ),
            (
                json!({"analysis": {"confidence": 0.9}}),
                "analysis.confidence",
            ),
            (
                json!({"analysis": {"maxErrorRateRatio": 2.0}}),
                "analysis.maxErrorRateRatio",
            ),
            (
                json!({"analysis": {"minRequests": 5}}),
                "analysis.minRequests",
            ),
            (
                json!({"analysis": {"onInconclusive": "Abort"}}),
                "analysis.onInconclusive",
            ),
        ] {
            let refused = by_gateways(rollout).expect_err("refused");
            assert_eq!(refused, Invalid::NeedsCounts(field));
            assert!(
                refused.to_string().contains("write rollout.weight"),
                "{refused}"
            );
        }
    }

    #[test]
    fn with_routers_a_canary_is_the_default_and_without_them_blue_green() {
        assert_eq!(
            of(json!({}), true).expect("valid").strategy,
            Policy::default().strategy
        );
        assert_eq!(
            of(json!({}), false).expect("valid").strategy,
            Strategy::BlueGreen
        );
    }

    #[test]
    fn every_field_is_read() {
        let policy = of(
            json!({
                "strategy": "Canary", "paused": true, "approval": "Manual", "rollbackWindow": "10m",
                "steps": [{"weight": 10, "soak": "30s"}, {"weight": 60, "soak": "2m"}],
                "analysis": {"confidence": 0.95, "maxErrorRateRatio": 1.5, "minRequests": 7, "onInconclusive": "Abort", "deadline": "5m", "settle": "20s"},
            }),
            true,
        )
        .expect("valid");
        let step = |percent, seconds| CanaryStep {
            weight: Weight::new(percent).expect("in range"),
            soak: Duration::from_secs(seconds),
        };
        let expected = Policy {
            strategy: Strategy::Canary(Split::Steps(vec![step(10, 30), step(60, 120)])),
            paused: true,
            approval: Approval::Manual,
            rollback_window: Duration::from_secs(600),
            analysis: Analysis {
                max_disagreement: 0.01,
                max_latency: None,
                confidence: 0.95,
                max_error_rate_ratio: 1.5,
                min_requests: 7,
                on_inconclusive: OnInconclusive::Abort,
                deadline: Duration::from_secs(300),
                settle: Duration::from_secs(20),
                signals: BTreeSet::from([
                    Signal::Errors,
                    Signal::SlowerThanStable,
                    Signal::ServiceTime,
                ]),
            },
            ..Policy::default()
        };
        assert_eq!(policy, expected);
        let held = of(json!({"weight": 30}), true).expect("valid").strategy;
        let thirty = Weight::new(30).expect("in range");
        assert_eq!(held, Strategy::Canary(Split::Weight(thirty)));
    }

    #[test]
    fn answers_are_tested_where_they_are_compared() {
        let shadow = |more: Value| {
            let mut compare = json!({"kind": "Classification"});
            compare
                .as_object_mut()
                .expect("an object")
                .extend(more.as_object().expect("an object").clone());
            of(json!({"shadow": {"percent": 5, "compare": compare}}), true).expect("valid")
        };
        let policy = shadow(json!({}));
        assert_eq!(policy.shadow, Some(5));
        assert!(policy.analysis.signals.contains(&Signal::Disagreement));
        assert_eq!(policy.analysis.max_disagreement, 0.01);
        let policy = shadow(json!({"maxDisagreement": 0.2}));
        assert_eq!(policy.analysis.tolerated().disagreement, 0.2);
        let without = of(json!({}), true).expect("valid");
        assert_eq!(without.shadow, None);
        assert!(!without.analysis.signals.contains(&Signal::Disagreement));
    }

    #[test]
    fn the_objective_is_the_nearest_bound_and_a_signal_of_its_own() {
        let analysis = of(json!({"analysis": {"maxLatency": "250ms"}}), true).expect("valid");
        let edge = analysis.analysis.max_latency.expect("an edge");
        assert_eq!(ortolan_stats::bound(edge), Duration::from_micros(245_760));
        assert!(analysis.analysis.signals.contains(&Signal::SlowerThanSlo));
        let without = of(json!({}), true).expect("valid").analysis;
        assert_eq!(without.max_latency, None);
        assert!(!without.signals.contains(&Signal::SlowerThanSlo));
    }

    #[test]
    fn what_needs_routers_says_so_where_there_are_none() {
        for (rollout, field) in [
            (json!({"strategy": "Canary"}), "strategy: Canary"),
            (json!({"steps": [{"weight": 5, "soak": "1m"}]}), "steps"),
            (json!({"weight": 5}), "weight"),
            (json!({"paused": true}), "paused"),
            (json!({"approval": "Manual"}), "approval: Manual"),
            (json!({"analysis": {}}), "analysis"),
            (
                json!({"validation": {"uri": "https://a/g.jsonl"}}),
                "validation",
            ),
            (
                json!({"shadow": {"percent": 5, "compare": {"kind": "Exact"}}}),
                "shadow",
            ),
            (json!({"rollbackWindow": "1h"}), "rollbackWindow"),
        ] {
            assert_eq!(of(rollout, false), Err(Invalid::NeedsRouters(field)));
        }
        for rollout in [
            json!({"strategy": "Recreate"}),
            json!({"approval": "Automatic", "paused": false}),
        ] {
            assert!(of(rollout, false).is_ok());
        }
    }

    #[test]
    fn what_an_older_schema_let_through_says_what_to_write() {
        for (rollout, says) in [
            (json!({"weight": 101}), "rollout.weight is 101"),
            (
                json!({"steps": [{"weight": 5, "soak": "1m"}, {"weight": 5, "soak": "1m"}]}),
                "a weight of 5 after 5",
            ),
            (
                json!({"steps": [{"weight": 5, "soak": "1 min"}]}),
                "soak is \"1 min\"",
            ),
            (
                json!({"analysis": {"confidence": 1.0}}),
                "from 0.5 to 0.9999",
            ),
            (
                json!({"analysis": {"maxErrorRateRatio": 0.0}}),
                "from 1 to 100",
            ),
            (json!({"analysis": {"minRequests": -1}}), "of at least 0"),
            (
                json!({"analysis": {"maxLatency": "2m"}}),
                "maxLatency is \"2m\"",
            ),
            (json!({"rollbackWindow": "1d"}), "rollbackWindow is \"1d\""),
            (
                json!({"shadow": {"percent": 0, "compare": {"kind": "Exact"}}}),
                "shadow.percent is 0",
            ),
            (
                json!({"shadow": {"percent": 5, "compare": {"kind": "Exact", "maxDisagreement": 2.0}}}),
                "maxDisagreement is 2: write a share from 0 to 0.5",
            ),
        ] {
            let refused = of(rollout, true).expect_err("refused").to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
