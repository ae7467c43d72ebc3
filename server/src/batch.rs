//! Which requests run next, and which of them together. Pure: the clock is an argument.
//!
//! Input: the queue, a policy, the time. Output: a [`Batch`]: what runs now, what is dropped, or until
//! when to wait. Invariants, each with a test of its own:
//! - a request leaves the queue once: to run, or because its client left or its deadline passed;
//! - what runs together [`joins`](Waiting::joins) and has at most [`Policy::max_rows`] rows; a request
//!   that is larger by itself runs alone;
//! - requests of one level that join are served in the order in which they came;
//! - while a lower level waits, at most [`PATIENCE`] batches in a row begin with a higher one.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// So many batches in a row may begin with a request of the highest level that waits while a lower one waits
/// too; the next begins with the request that has waited longest below it. When all are busy the highest
/// gets 8 of 9 runs, and no level stands still.
pub const PATIENCE: u32 = 8;
/// Of requests that do not join each other, so many kinds are looked at while a batch is held back for
/// more: a bound for the work of one decision.
const KINDS: usize = 8;

/// How requests are put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// At most so many rows run together; 1: every request runs alone.
    pub max_rows: usize,
    /// Numbers of rows that run as soon as they are there, rising, none above `max_rows`. Other numbers wait
    /// for `max_delay` to pass.
    pub preferred: Vec<usize>,
    /// A request is held back at most so long for others to join it.
    pub max_delay: Duration,
}

impl Policy {
    /// Every request runs alone.
    pub const ALONE: Self = Self {
        max_rows: 1,
        preferred: Vec::new(),
        max_delay: Duration::ZERO,
    };
}

/// What a queue must know of a request.
pub trait Waiting {
    /// Rows on the first axis.
    fn rows(&self) -> usize;
    /// Whether both can run as one. Symmetric and transitive, and false with itself for a request that
    /// must run alone.
    fn joins(&self, other: &Self) -> bool;
    /// When it came.
    fn since(&self) -> Instant;
    /// After this nobody wants the answer.
    fn deadline(&self) -> Option<Instant>;
    /// Its client has left.
    fn is_abandoned(&self) -> bool;
}

/// Requests that wait, by level, each level in the order of arrival.
#[derive(Debug)]
pub struct Queue<T> {
    levels: Vec<VecDeque<T>>,
    /// Batches in a row that began above a level that waits.
    passed: u32,
}

/// What to do next.
#[derive(Debug)]
pub struct Batch<T> {
    /// Runs now, as one.
    pub run: Vec<T>,
    /// Left the queue without a run: the client left, or the deadline passed.
    pub dropped: Vec<T>,
    /// Nothing runs yet: decide again at this time, or when a request comes.
    pub wait: Option<Instant>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self {
            run: Vec::new(),
            dropped: Vec::new(),
            wait: None,
        }
    }
}

impl<T: Waiting> Queue<T> {
    /// An empty queue; level 0 is served first.
    #[must_use]
    pub fn new(levels: usize) -> Self {
        Self {
            levels: (0..levels.max(1)).map(|_| VecDeque::new()).collect(),
            passed: 0,
        }
    }

    /// How many requests wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.levels.iter().map(VecDeque::len).sum()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(VecDeque::is_empty)
    }

    /// Puts a request behind the others of its level; a level that there is not counts as the last.
    pub fn push(&mut self, level: usize, request: T) {
        let last = self.levels.len() - 1;
        self.levels[level.min(last)].push_back(request);
    }

    /// Takes out everything.
    pub fn drain(&mut self) -> Vec<T> {
        self.levels.iter_mut().flat_map(std::mem::take).collect()
    }

    /// Takes out what need not run any more.
    pub fn sweep(&mut self, now: Instant) -> Vec<T> {
        let mut dropped = Vec::new();
        for level in &mut self.levels {
            if level.iter().any(|request| is_over(request, now)) {
                let (over, rest): (VecDeque<T>, VecDeque<T>) = std::mem::take(level)
                    .into_iter()
                    .partition(|request| is_over(request, now));
                dropped.extend(over);
                *level = rest;
            }
        }
        dropped
    }

    fn at(&self, (level, index): Place) -> &T {
        &self.levels[level][index]
    }

    /// Takes out the requests at `places`, which rise within each level.
    fn take(&mut self, places: &[Place]) -> Vec<T> {
        let backwards = places.iter().rev();
        let mut taken: Vec<T> = backwards
            .filter_map(|(level, index)| self.levels[*level].remove(*index))
            .collect();
        taken.reverse();
        taken
    }

    /// The level whose first request begins the next batch.
    fn head(&self) -> Option<usize> {
        let levels = self.levels.iter().enumerate();
        let mut waiting = levels.filter_map(|(level, requests)| Some((level, requests.front()?)));
        let (highest, _) = waiting.next()?;
        if self.passed < PATIENCE {
            return Some(highest);
        }
        let longest = waiting.min_by_key(|(_, request)| request.since());
        Some(longest.map_or(highest, |(level, _)| level))
    }

    /// A batch that began with a request of the level `head` was taken.
    fn note(&mut self, head: usize) {
        let passed_over = self.levels[head + 1..]
            .iter()
            .any(|level| !level.is_empty());
        self.passed = match passed_over && self.passed < PATIENCE {
            true => self.passed + 1,
            false => 0,
        };
    }
}

fn is_over<T: Waiting>(request: &T, now: Instant) -> bool {
    request.is_abandoned() || request.deadline().is_some_and(|deadline| deadline <= now)
}

/// A request's place: its level and its index there.
type Place = (usize, usize);

/// Takes the next batch out of the queue.
pub fn next_batch<T: Waiting>(queue: &mut Queue<T>, policy: &Policy, now: Instant) -> Batch<T> {
    let mut batch = Batch {
        dropped: queue.sweep(now),
        ..Batch::default()
    };
    let Some(head) = queue.head() else {
        return batch;
    };
    let others = (0..queue.levels.len()).filter(|level| *level != head);
    let order: Vec<usize> = [head].into_iter().chain(others).collect();
    // Without a delay the first request goes. With one, a kind that is complete may go before it.
    let mut kinds: Vec<Place> = Vec::new();
    for level in &order {
        for index in 0..queue.levels[*level].len() {
            let place = (*level, index);
            let is_known = |kind: &Place| queue.at(place).joins(queue.at(*kind));
            if kinds.iter().any(is_known) {
                continue;
            }
            let together = gather(queue, policy, place, &order);
            match ready(queue, policy, &together, now) {
                Ok(count) => {
                    batch.run = queue.take(&together.places[..count]);
                    batch.wait = None;
                    queue.note(*level);
                    return batch;
                }
                Err(until) => batch.wait = Some(batch.wait.map_or(until, |wait| wait.min(until))),
            }
            kinds.push(place);
            if kinds.len() == KINDS {
                return batch;
            }
        }
    }
    batch
}

/// Requests that could run as one.
struct Together {
    places: Vec<Place>,
    /// Nothing that comes later can be added.
    is_full: bool,
}

/// The request at `first` and those that join it, in the order of their service, as far as the rows reach.
fn gather<T: Waiting>(
    queue: &Queue<T>,
    policy: &Policy,
    first: Place,
    order: &[usize],
) -> Together {
    let head = queue.at(first);
    let mut rows = head.rows();
    let mut places = vec![first];
    let is_full = rows >= policy.max_rows || !head.joins(head);
    if is_full {
        return Together { places, is_full };
    }
    let behind = order.iter().flat_map(|level| {
        let start = if *level == first.0 { first.1 + 1 } else { 0 };
        (start..queue.levels[*level].len()).map(|index| (*level, index))
    });
    for place in behind {
        let request = queue.at(place);
        if !request.joins(head) {
            continue;
        }
        // One that does not fit is not overtaken by a smaller one behind it.
        if rows + request.rows() > policy.max_rows {
            let is_full = true;
            return Together { places, is_full };
        }
        rows += request.rows();
        places.push(place);
    }
    let is_full = rows == policy.max_rows;
    Together { places, is_full }
}

/// How many of the requests run now, or until when they wait for others.
fn ready<T: Waiting>(
    queue: &Queue<T>,
    policy: &Policy,
    together: &Together,
    now: Instant,
) -> Result<usize, Instant> {
    let places = &together.places;
    let sums = places.iter().scan(0, |sum, place| {
        *sum += queue.at(*place).rows();
        Some(*sum)
    });
    let preferred = sums
        .enumerate()
        .filter(|(_, rows)| policy.preferred.contains(rows))
        .last();
    if let Some((last, _)) = preferred {
        return Ok(last + 1);
    }
    let requests = || places.iter().map(|place| queue.at(*place));
    let oldest = requests().map(Waiting::since).min().unwrap_or(now);
    let until = oldest + policy.max_delay;
    let is_urgent = requests().any(|request| request.deadline().is_some_and(|end| end <= until));
    if policy.max_delay.is_zero() || together.is_full || is_urgent || until <= now {
        return Ok(places.len());
    }
    Err(until)
}

#[cfg(test)]
mod tests;
