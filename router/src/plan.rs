//! What a service's entry of the table means: which revision and which pod a request may go to.
//!
//! Inputs: the entry, how many routers there are, and the plan before it, whose pods, counters and order of the split
//! go on where they are the same. Output: a revision for each request, and a pod of it with room.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    balance::{self, View},
    copies::Copies,
    metrics::{Meter, Metrics},
    outlier,
    pod::Pod,
    split::{self, Split},
    table::{Balancing, Mirror, Revision, Routers, Service, ServiceName, Settings},
    tally::{self, Counts, Tally},
};

/// Requests at a time that one pod without `maxConcurrency` gets from those that waited.
pub const BURST: u32 = 16;
/// Which revision a request may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// By the weights.
    Split,
    /// One that holds this version, by the weights.
    Version(String),
    /// This one.
    Revision(String),
}

/// What a request needs.
#[derive(Clone, Debug)]
pub struct Want {
    /// Which revision.
    pub choice: Choice,
    /// The revision that it was given before.
    pub assigned: Option<Arc<str>>,
    /// Of its session: chooses revision and pod.
    pub key: Option<u64>,
    /// Chooses the pod alone.
    pub pod_key: Option<u64>,
    /// Pods that failed it already.
    pub avoid: Vec<SocketAddr>,
    /// The traffic generation under which it arrived; `None`: its end is not counted.
    pub generation: Option<u64>,
    /// Where its end is counted: for the revision that it was given first.
    pub charged: Option<Arc<Counts>>,
}

/// A revision and its pods.
#[derive(Debug)]
pub struct LiveRevision {
    /// Its name.
    pub name: Arc<str>,
    /// Its counters.
    pub meter: Arc<Meter>,
    /// What comes of requests that arrive now.
    pub(crate) counts: Arc<Counts>,
    limit: Option<u32>,
    /// Where requests go to each pod in turn: whose it is.
    turn: Option<Arc<AtomicUsize>>,
    /// Those that requests go to.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// All that the table names.
    known: HashMap<SocketAddr, Arc<Pod>>,
}

/// A service as its table's entry says.
#[derive(Debug)]
pub struct Plan {
    /// The entry.
    pub service: Service,
    /// The traffic generation that requests arrive under.
    pub(crate) generation: u64,
    pub(crate) routers: Routers,
    pub(crate) revisions: Vec<Arc<LiveRevision>>,
    /// Requests that are copied; a stateful model's are not.
    pub(crate) copies: Option<Arc<Copies>>,
    split: Arc<Split>,
    /// For each version that some revision names, and under "" for those whose versions are unknown.
    by_version: BTreeMap<String, Split>,
}

impl Plan {
    pub(crate) fn new(
        name: &ServiceName,
        service: Service,
        routers: Routers,
        before: Option<&Self>,
        (metrics, tally): (&Metrics, &Tally),
    ) -> Self {
        let generation = tally::key(service.generation);
        let mirror = service.mirror.as_ref();
        let mirror = mirror.filter(|_| !service.routing.stateful);
        let has = |name: &str| service.revisions.iter().any(|one| one.name == name);
        // It gets copies, and no request yet.
        let beside = mirror.filter(|mirror| !has(&mirror.revision)).map(beside);
        let named: Vec<&Revision> = service.revisions.iter().chain(&beside).collect();
        let counts = tally.turn(generation, named.iter().map(|r| &*r.name));
        let had = |revision: &str| {
            let mut revisions = before.into_iter().flat_map(Self::all);
            revisions.find(|had| &*had.name == revision)
        };
        let mut revisions: Vec<Arc<LiveRevision>> = named
            .into_iter()
            .zip(counts)
            .map(|(revision, counts)| {
                let had = had(&revision.name);
                let (name, meter) = had.map_or_else(
                    || {
                        let revision: Arc<str> = revision.name.as_str().into();
                        let meter = Arc::new(metrics.revision(name, &revision));
                        (revision, meter)
                    },
                    |had| (Arc::clone(&had.name), Arc::clone(&had.meter)),
                );
                let (pods, known) = pods(revision, had, before.is_some());
                let turn = (service.routing.balancing == Balancing::RoundRobin)
                    .then(|| had.and_then(|had| had.turn.clone()).unwrap_or_default());
                Arc::new(LiveRevision {
                    name,
                    meter,
                    counts,
                    limit: revision.max_concurrency.map(|max| routers.share(max)),
                    turn,
                    pods,
                    known,
                })
            })
            .collect();
        let copies = mirror.and_then(|mirror| {
            let to = revisions.iter().find(|one| *one.name == *mirror.revision)?;
            let before = before.and_then(|plan| plan.copies.as_deref());
            Some(Arc::new(Copies::new(mirror, Arc::clone(to), before)))
        });
        revisions.truncate(service.revisions.len());
        let weights = effective(&service.revisions);
        let split = match before {
            // The order goes on where it was.
            Some(before) if before.split.is_of(&weights) => Arc::clone(&before.split),
            _ => Arc::new(Split::new(&weights)),
        };
        let mut versions: Vec<&str> = vec![""];
        versions.extend(
            service
                .revisions
                .iter()
                .flat_map(|r| &r.versions)
                .map(String::as_str),
        );
        let by_version = versions
            .into_iter()
            .map(|version| (version.to_owned(), Split::new(&holding(&service, version))))
            .collect();
        Self {
            routers,
            revisions,
            copies,
            split,
            by_version,
            generation,
            service,
        }
    }

    /// Its revisions, and the one that gets only copies.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<LiveRevision>> {
        let copies = self.copies.iter().map(|copies| &copies.to);
        self.revisions.iter().chain(copies)
    }

    /// How its requests are handled.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.service.routing
    }

    /// Whether no revision that gets requests has a pod.
    #[must_use]
    pub fn is_at_zero(&self) -> bool {
        self.service
            .revisions
            .iter()
            .zip(&self.revisions)
            .all(|(table, live)| table.weight.get() == 0 || live.pods.is_empty())
    }

    /// Where requests for this version go.
    ///
    /// # Errors
    /// The versions that there are, when it is none of them.
    pub fn of_version(&self, version: &str) -> Result<Choice, Vec<&str>> {
        let mut holders = self.service.revisions.iter().map(|r| holds(r, version));
        if holders.clone().all(|holds| holds) {
            Ok(Choice::Split)
        } else if holders.any(|holds| holds) {
            Ok(Choice::Version(version.to_owned()))
        } else {
            Err(self
                .by_version
                .keys()
                .map(String::as_str)
                .filter(|v| !v.is_empty())
                .collect())
        }
    }

    /// The revision that a request names.
    ///
    /// # Errors
    /// The names that there are, when it is none of them.
    pub fn of_revision(&self, revision: &str) -> Result<Choice, Vec<&str>> {
        let mut names = self.service.revisions.iter().map(|r| &*r.name);
        if names.clone().any(|name| name == revision) {
            Ok(Choice::Revision(revision.to_owned()))
        } else {
            Err(names.by_ref().collect())
        }
    }

    pub(crate) fn index(&self, revision: &str) -> Option<usize> {
        let index = self
            .revisions
            .iter()
            .position(|one| &*one.name == revision)?;
        (!self.revisions[index].pods.is_empty()).then_some(index)
    }

    pub(crate) fn chosen(&self, want: &Want) -> Option<usize> {
        if let Some(index) = want.assigned.as_ref().and_then(|name| self.index(name)) {
            return Some(index);
        }
        let split = match &want.choice {
            Choice::Revision(name) => return self.index(name),
            Choice::Split => &*self.split,
            Choice::Version(version) => self
                .by_version
                .get(version)
                .or_else(|| self.by_version.get(""))?,
        };
        match want.key {
            Some(key) => split.by_key(key),
            None => split.next(),
        }
    }
}

/// Requests of a version that a revision does not name, or names none, may go to it: its server knows.
fn holds(revision: &Revision, version: &str) -> bool {
    revision.versions.is_empty() || revision.versions.iter().any(|one| one == version)
}

/// Weights of the revisions with ready pods, or, when there is none, with pods that still serve.
fn effective(revisions: &[Revision]) -> Vec<u32> {
    let of = |has: fn(&Revision) -> bool| {
        split::effective(
            revisions
                .iter()
                .map(|revision| (revision.weight.get(), has(revision))),
        )
    };
    let ready = of(|revision| revision.endpoints.iter().any(|one| one.ready));
    if ready.iter().any(|weight| *weight > 0) {
        ready
    } else {
        of(|revision| !revision.usable().is_empty())
    }
}

/// The same for those that hold a version. When none of them has a weight they share its requests evenly: who names a
/// version wants that one.
fn holding(service: &Service, version: &str) -> Vec<u32> {
    let holds = |revision: &Revision| holds(revision, version);
    let mut weights = effective(&service.revisions);
    for (weight, revision) in weights.iter_mut().zip(&service.revisions) {
        if !holds(revision) {
            *weight = 0;
        }
    }
    if weights.iter().all(|weight| *weight == 0) {
        let alone = |r: &Revision| u32::from(holds(r) && !r.usable().is_empty());
        weights = service.revisions.iter().map(alone).collect();
    }
    weights
}

/// The revision that gets copies, as one of the service's without a weight.
fn beside(mirror: &Mirror) -> Revision {
    Revision {
        name: mirror.revision.clone(),
        max_concurrency: mirror.max_concurrency,
        endpoints: mirror.endpoints.clone(),
        ..Revision::default()
    }
}

/// The pods of a revision: those that requests go to, and all. One that became ready is cold, and not left out for what it
/// did before: its container may have been started anew. Beside older ones it begins slowly. Those that are there when the
/// router meets the service (`is_known` is false) may have been there for long.
fn pods(
    revision: &Revision,
    before: Option<&Arc<LiveRevision>>,
    is_known: bool,
) -> (Vec<Arc<Pod>>, HashMap<SocketAddr, Arc<Pod>>) {
    let known: HashMap<SocketAddr, Arc<Pod>> = revision
        .endpoints
        .iter()
        .map(|endpoint| {
            let had = before.and_then(|had| had.known.get(&endpoint.address));
            let pod = had.map_or_else(|| Arc::new(Pod::new(endpoint.address)), Arc::clone);
            (endpoint.address, pod)
        })
        .collect();
    let usable = revision.usable();
    let pods: Vec<Arc<Pod>> = usable
        .iter()
        .filter_map(|one| known.get(&one.address))
        .map(Arc::clone)
        .collect();
    let older = before.map(|had| &*had.pods).unwrap_or_default();
    let is_new = |pod: &&Arc<Pod>| older.iter().all(|had| had.address != pod.address);
    for pod in pods.iter().filter(is_new).filter(|_| is_known) {
        pod.begins();
        if !older.is_empty() {
            pod.joins();
        }
    }
    (pods, known)
}

impl LiveRevision {
    /// A pod with room, entered.
    pub(crate) fn enter(&self, want: &Want, is_held: bool) -> Option<Arc<Pod>> {
        let limit = match self.limit {
            Some(limit) => limit,
            None if is_held => BURST,
            None => u32::MAX,
        };
        let key = want.key.or(want.pod_key);
        self.enter_up_to(limit, (key, self.turn.as_ref()), &want.avoid)
    }

    /// A pod that has room for a copy, entered: one place more than that is left free for requests, but where there is
    /// only one.
    pub(crate) fn enter_spare(&self) -> Option<Arc<Pod>> {
        let limit = self.limit.map_or(u32::MAX, |limit| (limit - 1).max(1));
        // The turns are the requests' own.
        self.enter_up_to(limit, (None, None), &[])
    }

    fn enter_up_to(
        &self,
        limit: u32,
        (key, turn): (Option<u64>, Option<&Arc<AtomicUsize>>),
        avoid: &[SocketAddr],
    ) -> Option<Arc<Pod>> {
        let view = |i: usize| self.pods[i].view(limit, avoid);
        // Who is faster may take the last place between the choice and the entry: then once more.
        for _ in 0..3 {
            let by_key = key.and_then(|key| {
                balance::sticky(self.pods.len(), key, view, |i| self.pods[i].rank())
            });
            let chosen = by_key.or_else(|| self.choose(turn, view))?;
            if self.pods[chosen].enter(limit) {
                return Some(Arc::clone(&self.pods[chosen]));
            }
        }
        self.pods
            .iter()
            .find(|pod| pod.enter(limit))
            .map(Arc::clone)
    }

    /// The pod of a request that no key ties to one.
    fn choose(
        &self,
        turn: Option<&Arc<AtomicUsize>>,
        view: impl Fn(usize) -> View,
    ) -> Option<usize> {
        let Some(turn) = turn else {
            return balance::choose(self.pods.len(), view, |n| fastrand::usize(0..n));
        };
        let now = turn.fetch_add(1, Ordering::Relaxed);
        match balance::in_turn(self.pods.len(), now, view) {
            Some((chosen, passed)) => {
                turn.fetch_add(passed, Ordering::Relaxed);
                Some(chosen)
            }
            // It was nobody's.
            None => {
                turn.fetch_sub(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Whether another pod than those could be tried.
    #[must_use]
    pub fn has_other(&self, than: &[SocketAddr]) -> bool {
        self.pods.iter().any(|pod| !than.contains(&pod.address))
    }

    /// A request to this pod failed by its fault. Answers whether it is left out now.
    pub fn failed(&self, pod: &Pod) -> bool {
        let out = self.pods.iter().filter(|pod| pod.is_out()).count();
        pod.failed(outlier::may_go(self.pods.len(), out))
    }
}
