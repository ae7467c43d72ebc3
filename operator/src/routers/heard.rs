//! What was heard of the routers, folded frame by frame, and what follows from it for one service.
//!
//! Pure: the time is a parameter. Invariants: only a router that was heard of within [`LATELY`] is told of; a router that
//! began anew is never a negative count; `complete` needs every router that may have requests, whether we reach it or not.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use ortolan_core::rollout::routers::{RouterStats, Routers};
use ortolan_stats::{EXAMPLES, Example, Frame, GENERATIONS, Outcome, Service};

use super::recent::{Recent, SLOT, SLOTS};
use crate::index::Key;

/// A frame comes each second: so long a silence is one.
pub const LATELY: Duration = Duration::from_secs(5);
/// A router that is neither expected nor heard of is remembered so long, in case that its connection only broke.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Services of one router that are kept, and revisions in a generation: far more than one operator has.
const SERVICES: usize = 20_000;
const REVISIONS: usize = 32;

#[derive(Debug)]
struct Router {
    name: String,
    started: Timestamp,
    at: Instant,
    services: HashMap<Key, Service>,
}

/// What was heard.
#[derive(Debug)]
pub struct Heard {
    /// Those that may have requests; `None` until that is known.
    expected: Option<BTreeSet<IpAddr>>,
    routers: BTreeMap<IpAddr, Router>,
    recent: HashMap<Key, Recent>,
    /// Where the slots begin.
    epoch: Instant,
}

/// A frame as it came.
#[derive(Debug)]
pub struct Came {
    /// From there.
    pub from: IpAddr,
    /// Whether it is the first of its stream: then it has everything.
    pub is_first: bool,
    /// When.
    pub at: Instant,
    /// The same on the wall.
    pub now: Timestamp,
}

fn key(name: &str) -> Option<Key> {
    let (namespace, name) = name.split_once('/')?;
    Some(Key {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// No router says more; who does is no router of ours.
fn bounded(mut service: Service) -> Service {
    let examples = std::mem::take(&mut service.examples).into_iter();
    // The newest, were there too many.
    let too_many = examples
        .len()
        .saturating_sub(GENERATIONS * REVISIONS * EXAMPLES);
    service.examples = examples.skip(too_many).map(Example::bounded).collect();
    while service.generations.len() > GENERATIONS {
        service.generations.pop_first();
    }
    for revisions in service.generations.values_mut() {
        while revisions.len() > REVISIONS {
            revisions.pop_first();
        }
    }
    service
}

/// What was added to the counts of each revision. Without a `before` everything is new.
fn added(before: Option<&Service>, now: &Service) -> Vec<(String, Outcome)> {
    let all = now.generations.iter().flat_map(|(generation, revisions)| {
        let had = before.and_then(|service| service.generations.get(generation));
        revisions.iter().map(move |(name, outcome)| {
            let had = had.and_then(|revisions| revisions.get(name));
            let added = had.and_then(|had| outcome.since(had));
            (name.clone(), added.unwrap_or_else(|| outcome.clone()))
        })
    });
    all.filter(|(_, added)| added.requests > 0).collect()
}

impl Heard {
    /// Nothing yet.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self {
            expected: None,
            routers: BTreeMap::new(),
            recent: HashMap::new(),
            epoch,
        }
    }

    /// These may have requests.
    pub fn expect(&mut self, routers: BTreeSet<IpAddr>) {
        self.expected = Some(routers);
    }

    /// Whether this one may have requests.
    #[must_use]
    pub fn expects(&self, router: IpAddr) -> bool {
        let expected = self.expected.as_ref();
        expected.is_some_and(|expected| expected.contains(&router))
    }

    /// Takes a frame. Answers the services for which all routers follow another generation now.
    pub fn take(&mut self, came: &Came, mut frame: Frame) -> Vec<Key> {
        let slot = self.slot(came.at);
        let window = SLOT.saturating_mul(u32::try_from(SLOTS).unwrap_or(u32::MAX));
        let known = self.routers.remove(&came.from).filter(|router| {
            router.started == frame.started
                && router.name == frame.router
                && came.at.saturating_duration_since(router.at) <= window
        });
        let was_known = known.is_some();
        // Of a router that we meet and that counts for longer nobody knows when it counted what.
        let is_recent = was_known || came.now.duration_since(frame.started) <= signed(window);
        let mut router = known.unwrap_or_else(|| Router {
            name: frame.router.clone(),
            started: frame.started,
            at: came.at,
            services: HashMap::new(),
        });
        router.at = came.at;
        for name in &frame.gone {
            key(name).and_then(|key| router.services.remove(&key));
        }
        let mut named = BTreeSet::new();
        let mut moved = Vec::new();
        for (name, service) in std::mem::take(&mut frame.services) {
            let Some(key) = key(&name) else { continue };
            let before = router.services.get(&key);
            if before.is_none() && router.services.len() >= SERVICES {
                continue;
            }
            let service = bounded(service);
            if is_recent {
                for (revision, outcome) in added(before, &service) {
                    let recent = self.recent.entry(key.clone()).or_default();
                    recent.add(&revision, &outcome, slot);
                }
            }
            if was_known && before.and_then(|service| service.generation) != service.generation {
                moved.push(key.clone());
            }
            named.insert(key.clone());
            router.services.insert(key, service);
        }
        if came.is_first {
            router.services.retain(|key, _| named.contains(key));
        }
        self.routers.insert(came.from, router);
        moved.retain(|key| self.followed(key, came.at).is_some());
        moved
    }

    /// Forgets what is too old.
    pub fn forget(&mut self, now: Instant) {
        let slot = self.slot(now);
        self.recent.retain(|_, recent| recent.forget(slot));
        let expected = self.expected.clone().unwrap_or_default();
        self.routers.retain(|address, router| {
            expected.contains(address) || now.saturating_duration_since(router.at) <= REMEMBERED
        });
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs() / SLOT.as_secs()
    }

    fn live(&self, now: Instant) -> impl Iterator<Item = (&IpAddr, &Router)> {
        let is_live = move |router: &Router| now.saturating_duration_since(router.at) <= LATELY;
        self.routers
            .iter()
            .filter(move |(_, router)| is_live(router))
    }

    /// The generation that every router that was heard of lately follows.
    fn followed(&self, key: &Key, now: Instant) -> Option<u64> {
        let of = |router: &Router| router.services.get(key)?.generation;
        let mut all = self.live(now).map(|(_, router)| of(router));
        let first = all.next()??;
        all.all(|one| one == Some(first)).then_some(first)
    }

    /// Whether every router that may have requests was heard of lately, and there is at least one.
    #[must_use]
    pub fn is_complete(&self, now: Instant) -> bool {
        let live: BTreeSet<&IpAddr> = self.live(now).map(|(address, _)| address).collect();
        let expected = self.expected.as_ref();
        expected.is_some_and(|expected| {
            !expected.is_empty() && expected.iter().all(|address| live.contains(address))
        })
    }

    /// How many routers were heard of lately.
    #[must_use]
    pub fn count(&self, now: Instant) -> usize {
        self.live(now).count()
    }

    /// What is known of one service.
    #[must_use]
    pub fn stats(&self, key: &Key, now: Instant) -> Routers {
        let one = |(_, router): (&IpAddr, &Router)| {
            let service = router.services.get(key).cloned().unwrap_or_default();
            RouterStats {
                name: router.name.clone(),
                started: router.started,
                generation: service.generation,
                generations: service.generations,
                examples: service.examples,
            }
        };
        let recent = self.recent.get(key);
        Routers {
            routers: self.live(now).map(one).collect(),
            complete: self.is_complete(now),
            followed: self.followed(key, now),
            recent: recent
                .map(|recent| recent.outcomes(self.slot(now)))
                .unwrap_or_default(),
        }
    }
}

fn signed(time: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(time).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
mod tests;
