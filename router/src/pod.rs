//! One pod as this router sees it: how busy it is, how long it has been there, whether requests to it fail.

use std::{
    net::SocketAddr,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    balance::{self, SLOW_START, Standing, View},
    outlier::Record,
    pool::Pool,
    split,
};

/// So many answers it takes until a pod is warm: its connections, caches and arenas are made by the first ones.
pub const COLD: u32 = 20;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A pod. It lives as long as a table names it or a request is with it.
#[derive(Debug)]
pub struct Pod {
    /// Its address.
    pub address: SocketAddr,
    /// The connections to it.
    pub pool: Pool,
    outstanding: AtomicU32,
    /// Milliseconds after [`START`] at which it joined pods that were there already; 0 for one that needs no sparing.
    joined: AtomicU64,
    /// Answers until it is warm.
    cold: AtomicU32,
    /// Whether the record holds anything: an answer that is fine need not look at it then.
    is_suspect: AtomicBool,
    record: Mutex<Record>,
}

impl Pod {
    /// Nothing is known of it.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            pool: Pool::new(address),
            outstanding: AtomicU32::new(0),
            joined: AtomicU64::new(0),
            cold: AtomicU32::new(0),
            is_suspect: AtomicBool::new(false),
            record: Mutex::default(),
        }
    }

    /// From now on it is spared for a while.
    pub fn joins(&self) {
        let millis = u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.joined.store(millis.max(1), Ordering::Relaxed);
    }

    /// It became ready: what failed before says nothing of it now, and it is cold.
    pub fn begins(&self) {
        self.cold.store(COLD, Ordering::Relaxed);
        let mut record = self.record();
        record.succeeded();
        self.is_suspect.store(false, Ordering::Relaxed);
    }

    /// As it stands now. `limit`: the requests that this router may have there.
    #[must_use]
    pub fn view(&self, limit: u32, avoid: &[SocketAddr]) -> View {
        let outstanding = self.outstanding.load(Ordering::Relaxed);
        View {
            outstanding,
            has_room: outstanding < limit,
            standing: if avoid.contains(&self.address) {
                Standing::FailedThis
            } else if self.is_out() {
                Standing::Out
            } else {
                Standing::Good
            },
            warmth: self.warmth(),
        }
    }

    /// It answered. Whether that was while it was cold: how long it took says little of those to come.
    pub fn answered_cold(&self) -> bool {
        self.cold.load(Ordering::Relaxed) > 0
            && self
                .cold
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
    }

    fn warmth(&self) -> f64 {
        let joined = self.joined.load(Ordering::Relaxed);
        if joined == 0 {
            return 1.0;
        }
        let age = START
            .elapsed()
            .saturating_sub(Duration::from_millis(joined));
        if age >= SLOW_START {
            self.joined.store(0, Ordering::Relaxed);
        }
        balance::warmth(age)
    }

    /// A number of its own, for the choice by a session's key.
    #[must_use]
    pub fn rank(&self) -> u64 {
        match self.address {
            SocketAddr::V4(v4) => {
                split::mix((u64::from(u32::from(*v4.ip())) << 16) | u64::from(v4.port()))
            }
            SocketAddr::V6(v6) => {
                split::hash(&[&v6.ip().octets()[..], &v6.port().to_be_bytes()].concat())
            }
        }
    }

    /// Takes a place, if fewer than `limit` are taken.
    #[must_use]
    pub fn enter(&self, limit: u32) -> bool {
        let more = |n| (n < limit).then_some(n + 1);
        self.outstanding
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .is_ok()
    }

    /// Gives the place back.
    pub fn leave(&self) {
        self.outstanding.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether it is left out for its failures.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed) && self.record().is_out(Instant::now())
    }

    /// A request was answered.
    pub fn succeeded(&self) {
        if self.is_suspect.load(Ordering::Relaxed) {
            let mut record = self.record();
            // Answers to requests from before it was put out change nothing.
            if !record.is_out(Instant::now()) {
                record.succeeded();
                self.is_suspect.store(false, Ordering::Relaxed);
            }
        }
    }

    /// A request failed by its fault. Answers whether it was put out for that.
    pub fn failed(&self, may_go: bool) -> bool {
        let mut record = self.record();
        self.is_suspect.store(true, Ordering::Relaxed);
        record.failed(Instant::now(), may_go)
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_up_to_the_limit_and_come_back() {
        let pod = Pod::new(([127, 0, 0, 1], 1).into());
        assert!(pod.enter(2) && pod.enter(2) && !pod.enter(2));
        assert!(!pod.view(2, &[]).has_room && pod.view(3, &[]).has_room);
        pod.leave();
        assert!(pod.enter(2));
    }

    #[test]
    fn a_pod_that_fails_again_and_again_is_out_and_late_answers_do_not_bring_it_back() {
        let pod = Pod::new(([127, 0, 0, 1], 1).into());
        let put_out: Vec<bool> = (0..5).map(|_| pod.failed(true)).collect();
        assert_eq!(put_out, [false, false, false, false, true]);
        pod.succeeded();
        assert_eq!(pod.view(9, &[]).standing, Standing::Out);
        let other = Pod::new(([127, 0, 0, 1], 2).into());
        let avoided = other.view(9, &[other.address]).standing;
        assert_eq!(avoided, Standing::FailedThis);
        assert_eq!(other.view(9, &[]).standing, Standing::Good);
        other.joins();
        assert!(other.view(9, &[]).warmth < 0.2 && pod.view(9, &[]).warmth == 1.0);
        assert!(!pod.answered_cold());
        pod.begins();
        let cold: Vec<bool> = (0..COLD + 2).map(|_| pod.answered_cold()).collect();
        assert_eq!(cold.iter().filter(|cold| **cold).count(), 20);
        assert_eq!(pod.view(9, &[]).standing, Standing::Good);
        assert!(!pod.failed(true), "five in a row again");
    }
}
