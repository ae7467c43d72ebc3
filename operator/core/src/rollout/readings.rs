//! From what routers count to what the evidence reads: two sides, by signal.
//!
//! A request is slow when it took longer than [`Edge`]: a quarter above the stable revision's 95th percentile before
//! the candidate got traffic, rounded up to a bucket. The quarter is there because the mixture of tests is about how
//! *often* something is slow: a candidate that is a hair slower in everything would have many times the share of
//! requests over the very percentile, and nobody would want it taken back for that. Requests that arrived before the
//! edge was settled are not judged by it.

use std::collections::BTreeMap;

use ortolan_stats::{
    Outcome, above,
    latency::{BOUNDS, bound, bucket},
    quantile,
};

use super::{
    evidence::{
        Count, Counters, Drift, Reading, Sides, Signal, Tally,
        drift::{Histogram, drift as apart},
    },
    routers::Routers,
    state::Edge,
};
use crate::revision::RevisionName;

/// The percentile of the stable revision that is looked at.
const PERCENTILE: f64 = 0.95;
/// How far above it the edge is.
const MARGIN: f64 = 1.25;
/// Requests that the stable revision must have had in the last ten minutes.
const ENOUGH: u64 = 100;

/// What each router counted of the two revisions.
#[must_use]
pub fn readings(
    routers: &Routers,
    candidate: &RevisionName,
    stable: Option<&RevisionName>,
    edges: &BTreeMap<Signal, Edge>,
) -> Vec<Reading> {
    let absent = Outcome::default();
    let tally = |generation: u64, revisions: &BTreeMap<String, Outcome>| -> Tally {
        let of = |name: &RevisionName| revisions.get(name.as_str()).unwrap_or(&absent);
        let sides = |count: &dyn Fn(&Outcome) -> Count| Sides {
            candidate: count(of(candidate)),
            stable: stable.map(|name| count(of(name))).unwrap_or_default(),
        };
        let errors = (Signal::Errors, sides(&errors));
        let settled = edges.iter().filter(|(_, edge)| edge.from <= generation);
        let slow = settled.map(|(signal, edge)| {
            let slower = |outcome: &Outcome| slower(outcome, *signal, edge.bucket);
            (*signal, sides(&slower))
        });
        let pairs = sides(&pairs);
        let compared = pairs.candidate.requests + pairs.stable.requests > 0;
        let pairs = compared.then_some((Signal::Disagreement, pairs));
        [errors].into_iter().chain(slow).chain(pairs).collect()
    };
    let reading = |router: &super::routers::RouterStats| Reading {
        source: router.name.clone(),
        started: router.started,
        counters: Counters::ByGeneration(
            router
                .generations
                .iter()
                .map(|(generation, revisions)| (*generation, tally(*generation, revisions)))
                .collect(),
        ),
    };
    routers.routers.iter().map(reading).collect()
}

/// What the stable revision did in the last ten minutes, by signal.
#[must_use]
pub fn recent(
    routers: &Routers,
    stable: Option<&RevisionName>,
    edges: &BTreeMap<Signal, u16>,
) -> BTreeMap<Signal, Count> {
    let Some(outcome) = stable.and_then(|name| routers.recent.get(name.as_str())) else {
        return BTreeMap::new();
    };
    let errors = (Signal::Errors, errors(outcome));
    let slow = edges
        .iter()
        .map(|(signal, edge)| (*signal, slower(outcome, *signal, *edge)));
    [errors].into_iter().chain(slow).collect()
}

/// The bucket over which a request is slow, where the stable revision had requests enough to say.
#[must_use]
pub fn slow(routers: &Routers, stable: Option<&RevisionName>) -> Option<u16> {
    above_usual(&routers.recent.get(stable?.as_str())?.latency)
}

/// The same of what its pods say that their runs took.
#[must_use]
pub fn slow_runs(routers: &Routers, stable: Option<&RevisionName>) -> Option<u16> {
    above_usual(&routers.recent.get(stable?.as_str())?.runs)
}

fn above_usual(histogram: &BTreeMap<u16, u64>) -> Option<u16> {
    let at = usize::from(quantile(histogram, PERCENTILE)?);
    if histogram.values().sum::<u64>() < ENOUGH || at >= BOUNDS {
        return None;
    }
    let edge = bucket((bound(at) as f64 * MARGIN) as u64);
    u16::try_from(edge).ok().filter(|_| edge < BOUNDS)
}

/// How far the classes of both revisions' answers are apart, over all that the routers still tell of this pair: the last
/// three changes of the traffic. `None` where no classes are compared.
#[must_use]
pub fn drift(
    routers: &Routers,
    candidate: &RevisionName,
    stable: Option<&RevisionName>,
) -> Option<Drift> {
    let mut histogram = Histogram::new();
    let mut own = Count::default();
    let generations = routers
        .routers
        .iter()
        .flat_map(|one| one.generations.values());
    for revisions in generations {
        // A generation in which the candidate was not compared says nothing of it.
        let Some(of_candidate) = revisions.get(candidate.as_str()) else {
            continue;
        };
        for (class, both) in &of_candidate.classes {
            let sum = histogram.entry(class.clone()).or_default();
            *sum = [0, 1].map(|side: usize| sum[side].saturating_add(both[side]));
        }
        if let Some(of_stable) = stable.and_then(|name| revisions.get(name.as_str())) {
            own = own + pairs(of_stable);
        }
    }
    apart(&histogram, own)
}

fn errors(outcome: &Outcome) -> Count {
    Count::new(outcome.requests, outcome.bad)
}

/// Answers to copies: the candidate's beside the stable revision's, the stable revision's beside its own.
fn pairs(outcome: &Outcome) -> Count {
    Count::new(outcome.compared, outcome.differed)
}

/// Of requests those that took longer than the edge; of the pods' runs the same.
fn slower(outcome: &Outcome, signal: Signal, edge: u16) -> Count {
    let histogram = match signal {
        Signal::ServiceTime => &outcome.runs,
        _ => &outcome.latency,
    };
    Count::new(histogram.values().sum(), above(histogram, edge))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{super::routers::RouterStats, *};

    fn outcome(bad: u64, latency: &[(u16, u64)]) -> Outcome {
        Outcome {
            requests: latency.iter().map(|(_, count)| count).sum(),
            bad,
            latency: latency.iter().copied().collect(),
            ..Outcome::default()
        }
    }

    fn routers() -> Routers {
        let counted = |stable: Outcome, candidate: Outcome| {
            BTreeMap::from([("m-1".to_owned(), stable), ("m-2".to_owned(), candidate)])
        };
        let one = RouterStats {
            name: "router-a".into(),
            started: Timestamp::UNIX_EPOCH,
            generation: Some(5),
            generations: BTreeMap::from([
                (
                    4,
                    counted(outcome(1, &[(10, 80), (30, 4)]), outcome(0, &[])),
                ),
                (
                    5,
                    counted(outcome(2, &[(10, 90), (30, 10)]), outcome(3, &[(30, 6)])),
                ),
            ]),
            examples: Vec::new(),
        };
        Routers {
            routers: vec![one],
            complete: true,
            followed: Some(5),
            recent: counted(outcome(2, &[(10, 950), (12, 50)]), outcome(0, &[])),
        }
    }

    fn name(text: &str) -> RevisionName {
        RevisionName::new(text)
    }

    #[test]
    fn both_sides_are_counted_by_generation_and_slowness_only_since_its_edge_is_settled() {
        let edge = |bucket| Edge { bucket, from: 5 };
        let edges = BTreeMap::from([
            (Signal::SlowerThanStable, edge(12)),
            (Signal::SlowerThanSlo, edge(30)),
            (Signal::ServiceTime, edge(20)),
        ]);
        let mut routers = routers();
        let counted = routers.routers[0].generations.get_mut(&5).expect("there");
        for (revision, runs) in [("m-1", [(8, 90), (21, 4)]), ("m-2", [(8, 2), (21, 3)])] {
            counted.get_mut(revision).expect("there").runs = runs.into();
        }
        let read = readings(&routers, &name("m-2"), Some(&name("m-1")), &edges);
        let Counters::ByGeneration(generations) = &read[0].counters else {
            panic!("a router counts by generation");
        };
        let sides = |candidate: [u64; 2], stable: [u64; 2]| Sides {
            candidate: candidate.into(),
            stable: stable.into(),
        };
        let before = Tally::from([(Signal::Errors, sides([0, 0], [84, 1]))]);
        let now = Tally::from([
            (Signal::Errors, sides([6, 3], [100, 2])),
            (Signal::SlowerThanStable, sides([6, 6], [100, 10])),
            (Signal::SlowerThanSlo, sides([6, 0], [100, 0])),
            (Signal::ServiceTime, sides([5, 3], [94, 4])),
        ]);
        assert_eq!(*generations, BTreeMap::from([(4, before), (5, now)]));
    }

    #[test]
    fn the_classes_of_all_routers_and_generations_are_read_together() {
        let mut routers = routers();
        let (candidate, stable) = (name("m-2"), name("m-1"));
        assert_eq!(drift(&routers, &candidate, Some(&stable)), None);
        for generation in [4, 5] {
            let counted = routers.routers[0].generations.get_mut(&generation);
            let outcome = counted.expect("there").get_mut("m-2").expect("there");
            let classes = [
                ("cat".to_owned(), [500, 300]),
                ("dog".to_owned(), [500, 700]),
            ];
            outcome.classes = classes.into();
        }
        let told = drift(&routers, &candidate, Some(&stable)).expect("classes");
        assert_eq!((told.pairs, told.distance, told.notable), (2000, 0.2, true));
        // A stable revision that differs from itself as often is no better.
        let counted = routers.routers[0].generations.get_mut(&5).expect("there");
        let outcome = counted.get_mut("m-1").expect("there");
        (outcome.compared, outcome.differed) = (100, 20);
        let told = drift(&routers, &candidate, Some(&stable)).expect("classes");
        assert!(!told.notable, "{told:?}");
    }

    #[test]
    fn pairs_of_answers_are_read_where_there_are_any() {
        let mut routers = routers();
        let counted = routers.routers[0].generations.get_mut(&5).expect("there");
        for (revision, differed) in [("m-1", 1), ("m-2", 9)] {
            let outcome = counted.get_mut(revision).expect("there");
            (outcome.compared, outcome.differed) = (40, differed);
        }
        let edges = BTreeMap::new();
        let read = readings(&routers, &name("m-2"), Some(&name("m-1")), &edges);
        let Counters::ByGeneration(generations) = &read[0].counters else {
            panic!("a router counts by generation");
        };
        let pairs = |generation| generations[&generation].get(&Signal::Disagreement).copied();
        let expected = Sides {
            candidate: Count::new(40, 9),
            stable: Count::new(40, 1),
        };
        assert_eq!((pairs(4), pairs(5)), (None, Some(expected)));
    }

    #[test]
    fn the_edge_is_a_quarter_above_the_95th_percentile_of_requests_enough() {
        let stable = name("m-1");
        // Bucket 10 ends at 160 µs; a quarter more is 200 µs, in bucket 13, which ends at 208 µs.
        assert_eq!((bound(10), bound(13)), (160, 208));
        assert_eq!(slow(&routers(), Some(&stable)), Some(13));
        assert_eq!(slow(&routers(), None), None);
        assert_eq!(slow(&routers(), Some(&name("m-2"))), None);
        let mut few = routers();
        few.recent.insert("m-1".into(), outcome(0, &[(10, 99)]));
        assert_eq!(slow(&few, Some(&stable)), None);
        few.recent.insert("m-1".into(), outcome(0, &[(161, 500)]));
        assert_eq!(slow(&few, Some(&stable)), None, "all took over a minute");
        assert_eq!(slow_runs(&routers(), Some(&stable)), None);
        let mut told = routers();
        let outcome = told.recent.get_mut("m-1").expect("there");
        outcome.runs = [(10, 99)].into();
        assert_eq!(slow_runs(&told, Some(&stable)), None, "too few");
        let outcome = told.recent.get_mut("m-1").expect("there");
        outcome.runs = [(10, 100)].into();
        assert_eq!(slow_runs(&told, Some(&stable)), Some(13));
    }

    #[test]
    fn what_the_stable_revision_did_before_is_counted_by_the_same_edge() {
        let edges = [(Signal::SlowerThanStable, 11), (Signal::ServiceTime, 11)];
        let counts = recent(&routers(), Some(&name("m-1")), &edges.into());
        let expected = [
            (Signal::Errors, Count::new(1000, 2)),
            (Signal::SlowerThanStable, Count::new(1000, 50)),
            (Signal::ServiceTime, Count::new(0, 0)),
        ];
        assert_eq!(counts, BTreeMap::from(expected));
        assert!(recent(&routers(), None, &BTreeMap::new()).is_empty());
    }
}
