//! What the routers tell the operator: counts of requests by service, traffic generation and revision.
//!
//! A router answers `GET /stats` with a stream of frames, one JSON object a line: the first holds every service that
//! it knows, each later one (one a second, sooner when a request has to wait for a pod) those that changed. A frame
//! without services is a sign of life.
//!
//! Invariants: counts only grow as long as `started` is the same; a request is counted under the traffic generation
//! under which it **arrived** and for the revision that it was first given to, wherever it was answered; it adds to
//! `requests` when it ended.

use std::{collections::BTreeMap, ops::AddAssign, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub mod example;
pub mod latency;

pub use example::{EXAMPLES, Example};

/// The path of the stream.
pub const PATH: &str = "/stats";

/// The audience of the ServiceAccount tokens that open the stream; good for nothing else. The chart says it, too.
pub const AUDIENCE: &str = "ortolan-router-stats";

/// Classes that a router counts by name, of one revision under one generation: the first ones that it meets. Those that are
/// frequent are among them.
pub const CLASSES: usize = 50;

/// Generations of a service's traffic that a router remembers: requests that arrived under the one before end late.
pub const GENERATIONS: usize = 3;

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frame {
    /// The router's name: that of its pod.
    pub router: String,
    /// When its counts began.
    pub started: Timestamp,
    /// Services by `namespace/name`: what is not named is as it was in an earlier frame of this stream.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, Service>,
    /// Services that are gone. One that is also in `services` went and came again: its counts began anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
}

/// What a router knows of one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The traffic generation that new requests arrive under; `None` where the service's status has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Requests that wait for a pod.
    #[serde(default)]
    pub held: u64,
    /// What ended, by the generation (0 where the service's status has none) and the revision; the newest
    /// [`GENERATIONS`]. Requests about health and metrics are not among them, nor those that no revision was chosen for.
    #[serde(default)]
    pub generations: BTreeMap<u64, BTreeMap<String, Outcome>>,
    /// Copies whose answers differ: of each of those generations and revisions the first [`EXAMPLES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
}

/// What came of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Requests that ended, by whatever end but that the client left.
    pub requests: u64,
    /// Those of them that ended with a 5xx, its like in gRPC, a timeout, or in the middle of the answer, and that
    /// another pod did not mend.
    pub bad: u64,
    /// From the arrival to the head of the answer, time in the line included: requests by the bucket of [`latency`]; a
    /// bucket without requests is left out. Of answers of pods that are warm: the first twenty that a router gets of a pod
    /// which became ready tell of its start. So these are fewer than `requests`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub latency: BTreeMap<u16, u64>,
    /// What the pods themselves say that their runs took, time in their queues left out: requests by the bucket, as in
    /// `latency`, of warm pods. Of answers whose pods say it, and that came from the revision that the request was first given to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runs: BTreeMap<u16, u64>,
    /// Copies of requests whose answers were compared with the user's: of the revision that copies go to, with the
    /// answer of the one that the user got it from; of that one, with its own answer to the same request, given twice.
    /// No copy is among `requests`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub compared: u64,
    /// Those of them whose answers differ.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub differed: u64,
    /// Where answers are compared by their best class, of the revision that copies go to: by the class, in how many pairs
    /// the user's answer has it, and in how many the copy's. Of each answer the first row counts; no class (no answer, say)
    /// is `none`; at most [`CLASSES`] are named, and the rest is counted under the empty name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, [u64; 2]>,
}

const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Outcome {
    /// Requests that took longer than a bucket's bound.
    #[must_use]
    pub fn slower(&self, bucket: u16) -> u64 {
        above(&self.latency, bucket)
    }

    /// The first bucket at whose bound at least this share (0 to 1) of the requests was answered; `None` without
    /// requests.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u16> {
        quantile(&self.latency, share)
    }

    /// What was counted since `before`; `None` when the counts began anew in between.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        let mut classes = BTreeMap::new();
        for (class, count) in &self.classes {
            let had = before.classes.get(class).copied().unwrap_or_default();
            let grown = [count[0].checked_sub(had[0])?, count[1].checked_sub(had[1])?];
            if grown != [0, 0] {
                classes.insert(class.clone(), grown);
            }
        }
        Some(Self {
            requests: self.requests.checked_sub(before.requests)?,
            bad: self.bad.checked_sub(before.bad)?,
            latency: grown(&self.latency, &before.latency)?,
            runs: grown(&self.runs, &before.runs)?,
            compared: self.compared.checked_sub(before.compared)?,
            differed: self.differed.checked_sub(before.differed)?,
            classes,
        })
    }
}

impl AddAssign<&Self> for Outcome {
    fn add_assign(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bad = self.bad.saturating_add(other.bad);
        self.compared = self.compared.saturating_add(other.compared);
        self.differed = self.differed.saturating_add(other.differed);
        for (class, count) in &other.classes {
            let sum = self.classes.entry(class.clone()).or_default();
            *sum = [0, 1].map(|side: usize| sum[side].saturating_add(count[side]));
        }
        for (into, from) in [
            (&mut self.latency, &other.latency),
            (&mut self.runs, &other.runs),
        ] {
            for (bucket, count) in from {
                let sum = into.entry(*bucket).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
    }
}

/// How many of a histogram lie above a bucket's bound.
#[must_use]
pub fn above(histogram: &BTreeMap<u16, u64>, bucket: u16) -> u64 {
    let higher = histogram.iter().filter(|(at, _)| **at > bucket);
    higher.map(|(_, count)| count).sum()
}

/// The first bucket of a histogram up to whose bound at least this share (0 to 1) lies; `None` of an empty one.
#[must_use]
pub fn quantile(histogram: &BTreeMap<u16, u64>, share: f64) -> Option<u16> {
    let all: u64 = histogram.values().sum();
    let mut seen = 0;
    histogram.iter().find_map(|(bucket, count)| {
        seen += count;
        (seen as f64 >= share * all as f64 && seen > 0).then_some(*bucket)
    })
}

/// What a histogram grew by; `None` when it shrank anywhere.
fn grown(now: &BTreeMap<u16, u64>, before: &BTreeMap<u16, u64>) -> Option<BTreeMap<u16, u64>> {
    let mut added = BTreeMap::new();
    for (bucket, count) in now {
        let had = before.get(bucket).copied().unwrap_or(0);
        let grown = count.checked_sub(had)?;
        if grown > 0 {
            added.insert(*bucket, grown);
        }
    }
    let shrank = |bucket| !now.contains_key(bucket);
    (!before.keys().any(shrank)).then_some(added)
}

/// The bound of a bucket as a time.
#[must_use]
pub fn bound(bucket: u16) -> Duration {
    Duration::from_micros(latency::bound(usize::from(bucket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(requests: u64, bad: u64, latency: &[(u16, u64)]) -> Outcome {
        Outcome {
            requests,
            bad,
            latency: latency.iter().copied().collect(),
            ..Outcome::default()
        }
    }

    #[test]
    fn quantiles_and_slow_requests_follow_from_the_buckets() {
        let some = outcome(100, 0, &[(3, 50), (7, 45), (20, 5)]);
        assert_eq!(some.quantile(0.5), Some(3));
        assert_eq!(some.quantile(0.95), Some(7));
        assert_eq!(some.quantile(0.96), Some(20));
        assert_eq!(
            (some.slower(3), some.slower(7), some.slower(20)),
            (50, 5, 0)
        );
        assert_eq!(Outcome::default().quantile(0.95), None);
    }

    #[test]
    fn counts_that_shrank_began_anew() {
        let before = outcome(10, 1, &[(3, 10)]);
        let after = outcome(15, 1, &[(3, 12), (4, 3)]);
        assert_eq!(after.since(&before), Some(outcome(5, 0, &[(3, 2), (4, 3)])));
        assert_eq!(before.since(&after), None);
        assert_eq!(outcome(15, 1, &[(4, 15)]).since(&before), None);
    }

    #[test]
    fn pairs_of_answers_add_up_and_are_told_only_where_there_are_any() {
        let pairs = |compared, differed| Outcome {
            compared,
            differed,
            ..Outcome::default()
        };
        let mut sum = pairs(10, 1);
        sum += &pairs(5, 2);
        assert_eq!(sum, pairs(15, 3));
        assert_eq!(sum.since(&pairs(10, 1)), Some(pairs(5, 2)));
        assert_eq!(pairs(10, 1).since(&sum), None);
        assert_eq!(pairs(10, 2).since(&pairs(10, 3)), None);
        let text = |outcome: &Outcome| serde_json::to_string(outcome).expect("JSON");
        assert_eq!(text(&pairs(0, 0)), r#"{"requests":0,"bad":0}"#);
        let told = r#"{"requests":0,"bad":0,"compared":15,"differed":3}"#;
        assert_eq!(text(&sum), told);
        assert_eq!(serde_json::from_str::<Outcome>(told).expect("read"), sum);
    }

    #[test]
    fn runs_are_a_histogram_beside_the_latency() {
        let of = |runs: &[(u16, u64)]| Outcome {
            runs: runs.iter().copied().collect(),
            ..Outcome::default()
        };
        let mut sum = of(&[(3, 2)]);
        sum += &of(&[(3, 1), (9, 1)]);
        assert_eq!(sum, of(&[(3, 3), (9, 1)]));
        assert_eq!(sum.since(&of(&[(3, 2)])), Some(of(&[(3, 1), (9, 1)])));
        assert_eq!(of(&[(3, 2)]).since(&sum), None);
        assert_eq!(
            (above(&sum.runs, 3), quantile(&sum.runs, 0.95)),
            (1, Some(9))
        );
        let text = serde_json::to_string(&sum).expect("JSON");
        assert_eq!(text, r#"{"requests":0,"bad":0,"runs":{"3":3,"9":1}}"#);
    }

    #[test]
    fn classes_add_up_and_shrink_never() {
        let of = |classes: &[(&str, [u64; 2])]| Outcome {
            classes: classes.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect(),
            ..Outcome::default()
        };
        let mut sum = of(&[("cat", [3, 2]), ("dog", [1, 2])]);
        sum += &of(&[("dog", [1, 1]), ("", [4, 4])]);
        let expected = of(&[("cat", [3, 2]), ("dog", [2, 3]), ("", [4, 4])]);
        assert_eq!(sum, expected);
        let before = of(&[("cat", [3, 2]), ("dog", [1, 2])]);
        let added = of(&[("dog", [1, 1]), ("", [4, 4])]);
        assert_eq!(sum.since(&before), Some(added));
        assert_eq!(before.since(&sum), None);
    }

    #[test]
    fn a_frame_is_one_line_of_json_and_reads_back() {
        let service = Service {
            generation: Some(7),
            held: 1,
            generations: BTreeMap::from([(
                7,
                BTreeMap::from([("cats-1".into(), outcome(2, 1, &[(3, 2)]))]),
            )]),
            examples: Vec::new(),
        };
        let frame = Frame {
            router: "router-a".into(),
            started: Timestamp::UNIX_EPOCH,
            services: BTreeMap::from([("demo/cats".into(), service)]),
            gone: Vec::new(),
        };
        let text = serde_json::to_string(&frame).expect("JSON");
        assert_eq!(
            text,
            r#"{"router":"router-a","started":"1970-01-01T00:00:00Z","services":{"demo/cats":{"generation":7,"held":1,"generations":{"7":{"cats-1":{"requests":2,"bad":1,"latency":{"3":2}}}}}}}"#
        );
        assert_eq!(
            serde_json::from_str::<Frame>(&text).expect("a frame"),
            frame
        );
    }
}
