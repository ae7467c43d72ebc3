//! One service at work: its revisions and pods, the line of those that wait, its budget of retries.
//!
//! ```text
//!  request ─► split ─► revision ─► pod with room ──────────► Place ─► … ─► dropped: the next in line
//!                 └ no pod, or all are full ─► line ─┘
//! ```
//!
//! Invariants: nobody overtakes the line; a request keeps the revision that the split gave it, so that waiting and
//! trying again leave the split exact; while requests wait, a pod has at most `maxConcurrency` of them (or [`BURST`]
//! where none is set), so that those that waited for it do not all fall upon it at once.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tower::retry::budget::TpsBudget;

use crate::{
    balance,
    hold::{Bounds, Full, Line, Number, Verdict},
    metrics::{Meter, Metrics, ServiceMeter},
    outlier,
    pod::Pod,
    split::{self, Split},
    table::{Revision, Routers, Service, ServiceName, Settings},
};

/// Requests at a time that one pod without `maxConcurrency` gets from those that waited.
pub const BURST: u32 = 16;
/// Retries are at most this part of the requests of the last [`WINDOW`] …
const RETRIES: f32 = 0.2;
const WINDOW: Duration = Duration::from_secs(10);
/// … and so many each second besides, or a service with few requests would have none.
const RETRIES_A_SECOND: u32 = 10;

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
    /// Of its session.
    pub key: Option<u64>,
    /// Pods that failed it already.
    pub avoid: Vec<SocketAddr>,
}

/// Why a request has no pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The line is as long as it may be.
    Full(Full),
    /// It waited as long as it may.
    Late,
    /// The router ends.
    Ending,
    /// The service is gone.
    Gone,
}

/// A revision and its pods.
#[derive(Debug)]
pub struct LiveRevision {
    /// Its name.
    pub name: Arc<str>,
    /// Its counters.
    pub meter: Arc<Meter>,
    limit: Option<u32>,
    /// Those that requests go to.
    pods: Vec<Arc<Pod>>,
    /// All that the table names.
    known: HashMap<SocketAddr, Arc<Pod>>,
}

/// A service as its table's entry says.
#[derive(Debug)]
pub struct Plan {
    /// The entry.
    pub service: Service,
    routers: Routers,
    revisions: Vec<Arc<LiveRevision>>,
    split: Arc<Split>,
    /// For each version that some revision names, and under "" for those whose versions are unknown.
    by_version: BTreeMap<String, Split>,
}

struct Waiting {
    want: Want,
    /// Taken when it is served.
    served: Option<oneshot::Sender<Place>>,
}

/// A service at work.
pub struct Live {
    /// Its name.
    pub name: ServiceName,
    /// Its counters.
    pub meter: ServiceMeter,
    /// Of retries.
    pub budget: TpsBudget,
    metrics: Metrics,
    plan: ArcSwap<Plan>,
    line: Mutex<Line<Waiting>>,
    /// The line's length, to be looked at without its lock.
    waiting: AtomicUsize,
    is_ending: AtomicBool,
    is_gone: AtomicBool,
}

/// A request's place at a pod; given back when it is dropped.
pub struct Place {
    /// The service.
    pub live: Arc<Live>,
    /// The revision.
    pub revision: Arc<LiveRevision>,
    /// The pod.
    pub pod: Arc<Pod>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.revision.meter.in_flight.dec();
        self.pod.leave();
        if self.live.waiting.load(Ordering::SeqCst) > 0 {
            self.live.serve_line();
        }
    }
}

/// What came of looking for a place.
enum Found {
    Place(Place),
    /// All pods of this revision (by its index) are full.
    Full(usize),
    /// No pod.
    None,
}

impl Plan {
    fn new(
        name: &ServiceName,
        service: Service,
        routers: Routers,
        before: Option<&Self>,
        metrics: &Metrics,
    ) -> Self {
        let had = |revision: &str| {
            let revisions = before.into_iter().flat_map(|plan| &plan.revisions);
            revisions.into_iter().find(|had| &*had.name == revision)
        };
        let revisions: Vec<Arc<LiveRevision>> = service
            .revisions
            .iter()
            .map(|revision| {
                Arc::new(LiveRevision::new(
                    name,
                    revision,
                    routers,
                    had(&revision.name),
                    metrics,
                ))
            })
            .collect();
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
            split,
            by_version,
            service,
        }
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

    fn index(&self, revision: &str) -> Option<usize> {
        let index = self
            .revisions
            .iter()
            .position(|one| &*one.name == revision)?;
        (!self.revisions[index].pods.is_empty()).then_some(index)
    }

    fn chosen(&self, want: &Want) -> Option<usize> {
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

impl LiveRevision {
    fn new(
        service: &ServiceName,
        revision: &Revision,
        routers: Routers,
        before: Option<&Arc<Self>>,
        metrics: &Metrics,
    ) -> Self {
        let name: Arc<str> = before.map_or_else(
            || revision.name.as_str().into(),
            |had| Arc::clone(&had.name),
        );
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
        if let Some(before) = before.filter(|had| !had.pods.is_empty()) {
            let is_new = |pod: &&Arc<Pod>| before.pods.iter().all(|had| had.address != pod.address);
            pods.iter().filter(is_new).for_each(|pod| pod.joins());
        }
        Self {
            meter: before.map_or_else(
                || Arc::new(metrics.revision(service, &name)),
                |had| Arc::clone(&had.meter),
            ),
            limit: revision.max_concurrency.map(|max| routers.share(max)),
            name,
            pods,
            known,
        }
    }

    /// A pod with room, entered.
    fn enter(&self, want: &Want, is_held: bool) -> Option<Arc<Pod>> {
        let limit = match self.limit {
            Some(limit) => limit,
            None if is_held => BURST,
            None => u32::MAX,
        };
        let view = |i: usize| self.pods[i].view(limit, &want.avoid);
        let draw = |n: usize| fastrand::usize(0..n);
        // Who is faster may take the last place between the choice and the entry: then once more.
        for _ in 0..3 {
            let of_session = want.key.and_then(|key| {
                balance::sticky(self.pods.len(), key, view, |i| self.pods[i].rank())
            });
            let chosen = of_session.or_else(|| balance::choose(self.pods.len(), view, draw))?;
            if self.pods[chosen].enter(limit) {
                return Some(Arc::clone(&self.pods[chosen]));
            }
        }
        self.pods
            .iter()
            .find(|pod| pod.enter(limit))
            .map(Arc::clone)
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

impl Live {
    /// A service that requests can be sent to.
    #[must_use]
    pub fn new(
        name: ServiceName,
        service: Service,
        routers: Routers,
        bounds: Bounds,
        metrics: &Metrics,
    ) -> Self {
        let plan = Plan::new(&name, service, routers, None, metrics);
        Self {
            meter: metrics.service(&name),
            budget: TpsBudget::new(WINDOW, RETRIES_A_SECOND, RETRIES),
            metrics: metrics.clone(),
            plan: ArcSwap::from_pointee(plan),
            line: Mutex::new(Line::new(bounds)),
            waiting: AtomicUsize::new(0),
            is_ending: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            name,
        }
    }

    /// As the table says now.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Takes a changed entry of the table; whoever waited for it goes on. One caller at a time.
    pub fn update(self: &Arc<Self>, service: Service, routers: Routers) {
        let before = self.plan();
        if before.service == service && before.routers == routers {
            return;
        }
        let plan = Plan::new(&self.name, service, routers, Some(&before), &self.metrics);
        let goes = |had: &&Arc<LiveRevision>| plan.revisions.iter().all(|one| one.name != had.name);
        before
            .revisions
            .iter()
            .filter(goes)
            .for_each(|had| had.meter.forget());
        self.plan.store(Arc::new(plan));
        self.serve_line();
    }

    /// Sends away all that wait, now and later: the router ends.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
        self.dismiss();
    }

    /// The same, because the table has no such service any more.
    pub fn remove(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
        self.dismiss();
        self.plan
            .load()
            .revisions
            .iter()
            .for_each(|had| had.meter.forget());
        self.metrics.forget_service(&self.meter);
    }

    fn dismiss(&self) {
        let mut line = self.line();
        line.clear();
        self.count(&line);
    }

    fn line(&self) -> MutexGuard<'_, Line<Waiting>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, line: &Line<Waiting>) {
        self.waiting.store(line.len(), Ordering::SeqCst);
        self.meter
            .held
            .set(i64::try_from(line.len()).unwrap_or(i64::MAX));
    }

    /// How many wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    fn dismissed(&self) -> Option<NoPlace> {
        if self.is_gone.load(Ordering::SeqCst) {
            return Some(NoPlace::Gone);
        }
        self.is_ending
            .load(Ordering::SeqCst)
            .then_some(NoPlace::Ending)
    }

    /// A place at a pod, at once or when one has room; `bytes`: what its body may take of the memory meanwhile.
    ///
    /// # Errors
    /// When it cannot wait, or waited until `until`.
    pub async fn place(
        self: &Arc<Self>,
        mut want: Want,
        bytes: usize,
        until: Instant,
    ) -> Result<Place, NoPlace> {
        if self.waiting.load(Ordering::SeqCst) == 0
            && let Found::Place(place) = self.look(&self.plan.load(), &mut want, false)
        {
            return Ok(place);
        }
        let (served, mut waits) = oneshot::channel();
        let number = {
            let mut line = self.line();
            // Under the line's lock: who ends the service sets it first and clears the line then.
            if let Some(why) = self.dismissed() {
                return Err(why);
            }
            let served = Some(served);
            let number = line.join(bytes, Waiting { want, served });
            self.count(&line);
            number.map_err(NoPlace::Full)?
        };
        let _leaves = Leaves { live: self, number };
        // A place may have become free since.
        self.serve_line();
        match timeout_at(until, &mut waits).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(self.dismissed().unwrap_or(NoPlace::Ending)),
            // It may have come at the last moment.
            Err(_) => waits.try_recv().map_err(|_| NoPlace::Late),
        }
    }

    fn look(self: &Arc<Self>, plan: &Plan, want: &mut Want, is_held: bool) -> Found {
        let Some(index) = plan.chosen(want) else {
            return Found::None;
        };
        let revision = &plan.revisions[index];
        if want.assigned.as_ref() != Some(&revision.name) {
            want.assigned = Some(Arc::clone(&revision.name));
            revision.meter.arrivals.inc();
        }
        match revision.enter(want, is_held) {
            Some(pod) => {
                revision.meter.in_flight.inc();
                Found::Place(Place {
                    live: Arc::clone(self),
                    revision: Arc::clone(revision),
                    pod,
                })
            }
            None => Found::Full(index),
        }
    }

    /// Gives places to those at the head of the line, as far as there are any.
    fn serve_line(self: &Arc<Self>) {
        let mut refused = Vec::new();
        {
            let mut line = self.line();
            if line.is_empty() {
                return;
            }
            let plan = self.plan.load();
            let mut full = vec![false; plan.revisions.len()];
            line.serve(|one| {
                let Some(served) = one.served.take_if(|served| !served.is_closed()) else {
                    return Verdict::Leaves;
                };
                let known = one.want.assigned.as_ref().and_then(|name| plan.index(name));
                let found = match known {
                    Some(index) if full[index] => Found::Full(index),
                    _ => self.look(&plan, &mut one.want, true),
                };
                match found {
                    Found::Place(place) => {
                        // Who has left since gives it back, but not under the line's lock.
                        refused.extend(served.send(place).err());
                        return Verdict::Leaves;
                    }
                    Found::Full(index) => full[index] = true,
                    Found::None if one.want.choice == Choice::Split => {
                        one.served = Some(served);
                        return Verdict::AllWait;
                    }
                    Found::None => {}
                }
                one.served = Some(served);
                let may_serve =
                    |(i, full): (usize, &bool)| !full && !plan.revisions[i].pods.is_empty();
                if full.iter().enumerate().any(may_serve) {
                    Verdict::Waits
                } else {
                    Verdict::AllWait
                }
            });
            self.count(&line);
        }
        drop(refused);
    }
}

/// Leaves the line when the request's future is dropped, for whatever reason.
struct Leaves<'a> {
    live: &'a Live,
    number: Number,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        let mut line = self.live.line();
        line.leave(self.number);
        self.live.count(&line);
    }
}
