//! What came back: latencies in a histogram of three digits, answers by code, what could not be sent.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::http::Broken;

/// An hour: no request is waited for so long.
const MOST: u64 = 3_600_000_000_000;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// An HTTP status.
    Http(u16),
    /// A gRPC code.
    Grpc(i32),
    /// No answer.
    Broken(Broken),
}

impl Ending {
    /// The request was answered as it should be.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Http(200..=299) | Self::Grpc(0))
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(status) => write!(f, "HTTP {status}"),
            Self::Grpc(code) => write!(f, "gRPC {code}"),
            Self::Broken(broken) => broken.fmt(f),
        }
    }
}

/// The end of one request.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How.
    pub ending: Ending,
    /// Bytes that came back.
    pub bytes: u64,
    /// The beginning of what an error says.
    pub words: String,
    /// It had to open a connection first.
    pub connected: bool,
}

/// Everything that was counted while it was measured.
#[derive(Debug)]
pub struct Tally {
    /// Of successes, in nanoseconds from when they were due (open loop) or sent (closed loop).
    pub latency: Histogram<u64>,
    /// How late the generator itself was, in nanoseconds; open loop only.
    pub slip: Histogram<u64>,
    /// How requests ended.
    pub endings: BTreeMap<Ending, u64>,
    /// What the first error of each kind said.
    pub words: BTreeMap<Ending, String>,
    /// Bytes of all answers.
    pub received: u64,
    /// Requests that had to open a connection first.
    pub connected: u64,
    /// Requests that were due while every connection was busy.
    pub waited: u64,
    /// The most requests that waited at once.
    pub longest_wait: usize,
    /// Requests that were due and never got a connection.
    pub never_sent: u64,
    /// Requests that were sent and still had no answer when the waiting ended.
    pub unfinished: u64,
    /// When the last answer came.
    pub last: Option<Instant>,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || {
            // Bounds and digits are constants that the constructor takes.
            Histogram::new_with_bounds(1, MOST, 3).expect("1 to an hour in three digits")
        };
        Self {
            latency: histogram(),
            slip: histogram(),
            endings: BTreeMap::new(),
            words: BTreeMap::new(),
            received: 0,
            connected: 0,
            waited: 0,
            longest_wait: 0,
            never_sent: 0,
            unfinished: 0,
            last: None,
        }
    }
}

impl Tally {
    /// Counts a request that was due at `due` and ended just now.
    pub fn record(&mut self, due: Instant, now: Instant, ended: Ended) {
        *self.endings.entry(ended.ending).or_default() += 1;
        self.received += ended.bytes;
        self.connected += u64::from(ended.connected);
        self.last = self.last.max(Some(now));
        if ended.ending.is_success() {
            self.latency
                .saturating_record(nanoseconds(now.saturating_duration_since(due)));
        } else {
            self.words.entry(ended.ending).or_insert(ended.words);
        }
    }

    /// Counts how late the generator came to a request that was due.
    pub fn slipped(&mut self, late: Duration) {
        self.slip.saturating_record(nanoseconds(late));
    }

    /// Requests that ended, well or not.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.endings.values().sum()
    }

    /// Requests that were answered as they should be.
    #[must_use]
    pub fn successes(&self) -> u64 {
        let good = self
            .endings
            .iter()
            .filter(|(ending, _)| ending.is_success());
        good.map(|(_, count)| count).sum()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(MOST).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ended(ending: Ending) -> Ended {
        Ended {
            ending,
            bytes: 10,
            words: format!("{ending}!"),
            connected: false,
        }
    }

    #[test]
    fn only_successes_have_a_latency_and_only_errors_have_words() {
        let mut tally = Tally::default();
        let due = Instant::now();
        let at = |ms| due + Duration::from_millis(ms);
        tally.record(due, at(5), ended(Ending::Http(200)));
        tally.record(due, at(900), ended(Ending::Http(503)));
        tally.record(due, at(901), ended(Ending::Broken(Broken::Timeout)));
        tally.record(due, at(7), ended(Ending::Grpc(0)));
        assert_eq!((tally.ended(), tally.successes()), (4, 2));
        assert_eq!(tally.latency.len(), 2);
        assert!(tally.latency.max() < 8_000_000);
        let words: Vec<_> = tally.words.values().map(String::as_str).collect();
        assert_eq!(words, ["HTTP 503!", "no answer in time!"]);
        assert_eq!(tally.last, Some(at(901)));
        assert_eq!(tally.received, 40);
    }

    proptest! {
        #[test]
        fn percentiles_are_exact_to_three_digits(mut micros in proptest::collection::vec(1..60_000_000_u64, 1..300)) {
            let mut tally = Tally::default();
            let due = Instant::now();
            for latency in &micros {
                tally.record(due, due + Duration::from_micros(*latency), ended(Ending::Http(200)));
            }
            micros.sort_unstable();
            for quantile in [0.5, 0.9, 0.99, 1.0] {
                let rank = ((quantile * micros.len() as f64).ceil() as usize).max(1);
                let exact = micros[rank - 1] as f64 * 1e3;
                let told = tally.latency.value_at_quantile(quantile) as f64;
                prop_assert!((told - exact).abs() <= exact * 0.001 + 1.0, "{told} {exact}");
            }
        }
    }
}
