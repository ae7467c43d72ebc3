//! How many predictions may be under way at once, over all models and protocols (`--max-concurrency`).
//!
//! Input: a prediction that begins. Output: a permit that it holds until its answer is made, or [`Crowded`].
//! Invariants: nothing waits here, the queue is behind; health, metrics and what describes a model never ask.

use std::num::NonZeroUsize;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Counts the predictions that are under way. The default has no bound.
#[derive(Debug, Default)]
pub struct Admission(Option<Bounded>);

#[derive(Debug)]
struct Bounded {
    limit: usize,
    places: Semaphore,
}

/// A prediction's place among those that are under way.
#[derive(Debug)]
pub struct Admitted<'a>(
    #[allow(dead_code, reason = "held until it is dropped")] Option<SemaphorePermit<'a>>,
);

/// As many predictions are under way as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} requests are under way, as many as --max-concurrency lets in; try again")]
pub struct Crowded {
    /// The bound.
    pub limit: usize,
}

impl Admission {
    /// With a bound, or without one.
    #[must_use]
    pub fn new(limit: Option<NonZeroUsize>) -> Self {
        Self(limit.map(|limit| {
            let limit = limit.get().min(Semaphore::MAX_PERMITS);
            Bounded {
                limit,
                places: Semaphore::new(limit),
            }
        }))
    }

    /// Lets a prediction in, if there is a place.
    pub fn enter(&self) -> Result<Admitted<'_>, Crowded> {
        let Some(bounded) = &self.0 else {
            return Ok(Admitted(None));
        };
        match bounded.places.try_acquire() {
            Ok(place) => Ok(Admitted(Some(place))),
            Err(_) => Err(Crowded {
                limit: bounded.limit,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_come_in_as_the_bound_says_and_a_place_is_free_when_one_leaves() {
        let admission = Admission::new(NonZeroUsize::new(2));
        let first = admission.enter().unwrap();
        let _second = admission.enter().unwrap();
        assert_eq!(admission.enter().unwrap_err(), Crowded { limit: 2 });
        drop(first);
        let _third = admission.enter().unwrap();
        assert!(admission.enter().is_err());
    }

    #[test]
    fn without_a_bound_everybody_comes_in() {
        let admission = Admission::default();
        let all: Vec<_> = (0..1000).map(|_| admission.enter().unwrap()).collect();
        assert_eq!(all.len(), 1000);
        assert!(
            Admission::new(NonZeroUsize::new(usize::MAX))
                .enter()
                .is_ok()
        );
    }
}
