//! Whether a pod that is ready by the book is left out for a while, because requests to it fail.
//!
//! Passive: judged by the router's own requests. [`IN_A_ROW`] failures in a row put a pod out for [`FIRST`], each
//! further time twice as long up to [`LONGEST`]; after that one more failure puts it out again, one success forgives
//! all. Never more than half of a revision's pods are out: when everything fails, the pods are not what is wrong.

use std::time::{Duration, Instant};

/// Failures in a row.
pub const IN_A_ROW: u32 = 5;
/// How long a pod is out the first time.
pub const FIRST: Duration = Duration::from_secs(5);
/// And at most.
pub const LONGEST: Duration = Duration::from_secs(60);

/// What is remembered of one pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    in_a_row: u32,
    times_out: u32,
    until: Option<Instant>,
}

impl Record {
    /// Whether the pod is left out now.
    #[must_use]
    pub fn is_out(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether there is anything to forgive.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// A request was answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A request failed by the pod's fault. `may_go` says whether another pod may be put out. Answers whether this one
    /// was.
    pub fn failed(&mut self, now: Instant, may_go: bool) -> bool {
        // Answers that come after it was put out are of requests from before.
        if self.is_out(now) {
            return false;
        }
        self.in_a_row += 1;
        let is_back = self.times_out > 0;
        if !may_go || (self.in_a_row < IN_A_ROW && !is_back) {
            return false;
        }
        let longer = 2_u32.saturating_pow(self.times_out.min(16));
        self.until = Some(now + FIRST.saturating_mul(longer).min(LONGEST));
        self.times_out += 1;
        self.in_a_row = 0;
        true
    }
}

/// Whether one more of `pods` may be put out when `out` are already.
#[must_use]
pub const fn may_go(pods: usize, out: usize) -> bool {
    (out + 1) * 2 <= pods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_put_a_pod_out_and_a_success_forgives_all() {
        let now = Instant::now();
        let mut record = Record::default();
        for _ in 1..IN_A_ROW {
            assert!(!record.failed(now, true));
        }
        record.succeeded();
        assert!(record.is_clean());
        for _ in 1..IN_A_ROW {
            assert!(!record.failed(now, true));
        }
        assert!(record.failed(now, true));
        assert!(record.is_out(now + FIRST - Duration::from_millis(1)));
        assert!(!record.is_out(now + FIRST));
    }

    #[test]
    fn a_pod_that_fails_again_is_out_for_longer_each_time_up_to_a_minute() {
        let mut now = Instant::now();
        let mut record = Record::default();
        for _ in 1..IN_A_ROW {
            record.failed(now, true);
        }
        for seconds in [5, 10, 20, 40, 60, 60, 60] {
            assert!(
                record.failed(now, true),
                "one failure is enough for a pod that was out"
            );
            assert!(
                !record.failed(now, true),
                "late answers do not make it longer"
            );
            let end = now + Duration::from_secs(seconds);
            assert!(record.is_out(end - Duration::from_millis(1)));
            assert!(!record.is_out(end), "{seconds}");
            now = end;
        }
    }

    #[test]
    fn at_most_half_of_the_pods_are_out() {
        let allowed: Vec<bool> = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (4, 1), (5, 2)]
            .map(|(pods, out)| may_go(pods, out))
            .into();
        assert_eq!(allowed, [false, true, false, true, false, true, false]);
        let mut record = Record::default();
        for _ in 0..20 {
            assert!(!record.failed(Instant::now(), false));
        }
        assert!(!record.is_out(Instant::now()));
    }
}
