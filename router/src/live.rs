//! One service at work: its revisions and pods, the line of those that wait, its budget of retries.
//!
//! ```text
//!  request ─► split ─► revision ─► pod with room ──────────► Place ─► … ─► dropped: the next in line
//!                 └ no pod, or all are full ─► line ─┘
//! ```
//!
//! Invariants: nobody overtakes the line; a request keeps the revision that the split gave it, so that waiting and
//! trying again leave the split exact; while requests wait, a pod has at most `maxConcurrency` of them (or [`BURST`](crate::plan::BURST)
//! where none is set), so that those that waited for it do not all fall upon it at once.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, timeout_at},
};
use tower::retry::budget::TpsBudget;

use crate::{
    hold::{Bounds, Full, Line, Number, Verdict},
    metrics::{Metrics, ServiceMeter},
    plan::{Choice, LiveRevision, Plan, Want},
    pod::Pod,
    table::{Routers, Service, ServiceName},
    tally::{Counts, Mark, Tally},
};

/// Retries are at most this part of the requests of the last [`WINDOW`] …
const RETRIES: f32 = 0.2;
const WINDOW: Duration = Duration::from_secs(10);
/// … and so many each second besides, or a service with few requests would have none.
const RETRIES_A_SECOND: u32 = 10;

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
    tally: Tally,
    /// Told when the first request has to wait.
    wakes: watch::Sender<()>,
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
    /// Where the request's end is counted.
    pub charged: Option<Arc<Counts>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.revision.meter.in_flight.dec();
        self.pod.leave();
        self.live.left();
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

impl Live {
    /// A service that requests can be sent to.
    #[must_use]
    pub fn new(
        name: ServiceName,
        service: Service,
        routers: Routers,
        bounds: Bounds,
        metrics: &Metrics,
        wakes: watch::Sender<()>,
    ) -> Self {
        let tally = Tally::default();
        let plan = Plan::new(&name, service, routers, None, (metrics, &tally));
        Self {
            meter: metrics.service(&name),
            budget: TpsBudget::new(WINDOW, RETRIES_A_SECOND, RETRIES),
            metrics: metrics.clone(),
            tally,
            wakes,
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
        let counted = (&self.metrics, &self.tally);
        let plan = Plan::new(&self.name, service, routers, Some(&before), counted);
        let goes = |had: &&Arc<LiveRevision>| plan.all().all(|one| one.name != had.name);
        before.all().filter(goes).for_each(|had| had.meter.forget());
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
        self.plan.load().all().for_each(|had| had.meter.forget());
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
        let before = self.waiting.swap(line.len(), Ordering::SeqCst);
        self.meter
            .held
            .set(i64::try_from(line.len()).unwrap_or(i64::MAX));
        if before == 0 && !line.is_empty() {
            self.wakes.send_replace(());
        }
    }

    /// How many wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// A place at a pod is free again.
    pub(crate) fn left(self: &Arc<Self>) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.serve_line();
        }
    }

    /// What tells whether [`Self::told`] would say something else now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let plan = self.plan.load();
        self.tally.mark(plan.service.generation, self.held())
    }

    /// What came of its requests.
    #[must_use]
    pub fn told(&self) -> ortolan_stats::Service {
        ortolan_stats::Service {
            generation: self.plan.load().service.generation,
            held: self.held() as u64,
            generations: self.tally.generations(),
            examples: self.tally.examples(),
        }
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
    /// When it cannot wait, or waited until `until`; `want` then says whether a revision was chosen.
    pub async fn place(
        self: &Arc<Self>,
        want: &mut Want,
        bytes: usize,
        until: Instant,
    ) -> Result<Place, NoPlace> {
        if self.waiting.load(Ordering::SeqCst) == 0
            && let Found::Place(place) = self.look(&self.plan.load(), want, false)
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
            let one = Waiting {
                want: want.clone(),
                served: Some(served),
            };
            let number = line.join(bytes, one);
            self.count(&line);
            number.map_err(NoPlace::Full)?
        };
        let leaves = Leaves { live: self, number };
        // A place may have become free since.
        self.serve_line();
        match timeout_at(until, &mut waits).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(self.dismissed().unwrap_or(NoPlace::Ending)),
            Err(_) => {
                // It may have been given a revision meanwhile.
                if let Some(left) = leaves.now() {
                    *want = left.want;
                }
                // A place may have come at the last moment.
                waits.try_recv().map_err(|_| NoPlace::Late)
            }
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
        if let (Some(generation), None) = (want.generation, &want.charged) {
            // Who waited while the traffic changed is counted under what it arrived under.
            want.charged = Some(if generation == plan.generation {
                Arc::clone(&revision.counts)
            } else {
                self.tally.of(generation, &revision.name)
            });
        }
        match revision.enter(want, is_held) {
            Some(pod) => {
                revision.meter.in_flight.inc();
                Found::Place(Place {
                    live: Arc::clone(self),
                    revision: Arc::clone(revision),
                    pod,
                    charged: want.charged.clone(),
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

impl Leaves<'_> {
    fn now(&self) -> Option<Waiting> {
        let mut line = self.live.line();
        let left = line.leave(self.number);
        self.live.count(&line);
        left
    }
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        // Outside of the lock: what leaves is dropped here.
        drop(self.now());
    }
}
