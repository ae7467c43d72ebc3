//! Sends the load: an open loop, whose requests are due at their times whatever the server does, or a closed loop,
//! whose every connection sends its next request when it has the answer to the last.
//!
//! **No coordinated omission.** In an open loop latency counts from when a request was due. When all connections are
//! busy it waits here, and that wait is part of its latency, as it would be for the client who sent it. Requests that
//! are still waiting at the end are sent, too; those that even then never got a connection are counted and told.
//!
//! One thread does it all: a generator must leave the machine to what it measures.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_local, yield_now},
    time::{sleep, timeout},
};

use super::{
    arrivals::{Arrivals, Pattern},
    client::{Client, Target},
    http::Broken,
    tally::{Ended, Ending, Tally},
    timer::{Timer, late},
};

/// Nobody gains from knocking faster at a closed door.
const AFTER_REFUSAL: Duration = Duration::from_millis(20);
/// Overdue requests that are handed out before the connections get their turn.
const AT_ONCE: usize = 8;

/// Who decides when a request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loop {
    /// The clock.
    Open {
        /// The distances between requests.
        pattern: Pattern,
        /// Requests a second.
        rate: f64,
        /// Connections to send them on.
        connections: usize,
        /// Of the distances.
        seed: u64,
    },
    /// The answers.
    Closed {
        /// Requests that are under way at any time.
        concurrency: usize,
    },
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Open or closed.
    pub by: Loop,
    /// Load that is not counted, at first.
    pub warm_up: Duration,
    /// Load that is counted, then.
    pub duration: Duration,
    /// Stop after so many counted requests.
    pub requests: Option<u64>,
    /// A request that takes longer has failed.
    pub timeout: Duration,
}

/// What is shared by the tasks of one run, all of one thread.
struct Run {
    target: Rc<Target>,
    plan: Plan,
    /// The first request may be due now.
    began: Instant,
    /// From here on it counts.
    counts_from: Instant,
    /// From here on nothing is sent any more.
    ends: Instant,
    tally: RefCell<Tally>,
    /// Which body comes next.
    next: Cell<usize>,
    /// Counted requests that were sent or are due.
    begun: Cell<u64>,
}

impl Run {
    fn new(target: Rc<Target>, plan: Plan) -> Self {
        let began = Instant::now();
        let counts_from = began + plan.warm_up;
        Self {
            began,
            target,
            plan,
            counts_from,
            ends: counts_from + plan.duration,
            tally: RefCell::default(),
            next: Cell::new(0),
            begun: Cell::new(0),
        }
    }

    /// Whether a request that is due at `due` is still part of the plan; counts it if it is.
    fn begin(&self, due: Instant) -> bool {
        if due >= self.ends {
            return false;
        }
        if due >= self.counts_from {
            if self
                .plan
                .requests
                .is_some_and(|most| self.begun.get() >= most)
            {
                return false;
            }
            self.begun.set(self.begun.get() + 1);
        }
        true
    }

    async fn send(&self, client: &mut Client, due: Instant) {
        let body = self.next.get();
        self.next.set((body + 1) % self.target.len());
        let ended = match timeout(self.plan.timeout, client.exchange(&self.target, body)).await {
            Ok(ended) => ended,
            Err(_) => {
                client.give_up();
                broken(Broken::Timeout)
            }
        };
        let now = Instant::now();
        let refused = ended.ending == Ending::Broken(Broken::Refused);
        if due >= self.counts_from {
            self.tally.borrow_mut().record(due, now, ended);
        }
        if refused {
            sleep(AFTER_REFUSAL).await;
        }
    }
}

/// No answer, in the form of an ended request.
#[must_use]
pub fn broken(broken: Broken) -> Ended {
    Ended {
        ending: Ending::Broken(broken),
        bytes: 0,
        words: String::new(),
        connected: false,
    }
}

/// Sends what the plan says, until its end or until `stop`. Gives what was counted, and for how long. `counting` is
/// called when the counting begins. Must run inside a `LocalSet`.
pub async fn run(
    target: Rc<Target>,
    plan: Plan,
    counting: impl FnOnce() + 'static,
    stop: impl Future<Output = ()>,
) -> std::io::Result<(Tally, Duration)> {
    let clients = match plan.by {
        Loop::Open { connections, .. } => connections,
        Loop::Closed { concurrency } => concurrency,
    };
    let ready = target.clients(clients).await;
    let run = Rc::new(Run::new(target, plan));
    let begins = run.counts_from.into();
    let watch = spawn_local(async move {
        tokio::time::sleep_until(begins).await;
        counting();
    });
    let mut tasks = vec![watch];
    match plan.by {
        Loop::Open {
            pattern,
            rate,
            seed,
            ..
        } => {
            let arrivals = Arrivals::new(pattern, rate, seed);
            let open = Rc::new(Open::new(Rc::clone(&run), ready.len()));
            for (id, client) in ready.into_iter().enumerate() {
                tasks.push(spawn_local(Rc::clone(&open).work(id, client)));
            }
            tokio::select! {
                dispatched = open.dispatch(arrivals) => dispatched?,
                () = stop => {}
            }
        }
        Loop::Closed { .. } => {
            let workers: Vec<JoinHandle<()>> = ready
                .into_iter()
                .map(|client| spawn_local(closed(Rc::clone(&run), client)))
                .collect();
            let all = futures::future::join_all(workers);
            tokio::select! {
                _ = all => {}
                () = stop => {}
            }
        }
    }
    for task in tasks {
        task.abort();
    }
    let tally = run.tally.take();
    // With a number of requests the last answer is the end; else the time that was asked for.
    let end = match (plan.requests, tally.last) {
        (_, None) => Instant::now().min(run.ends),
        (Some(_), Some(last)) => last,
        (None, Some(last)) => last.max(Instant::now().min(run.ends)),
    };
    Ok((tally, end.saturating_duration_since(run.counts_from)))
}

async fn closed(run: Rc<Run>, mut client: Client) {
    loop {
        let now = Instant::now();
        if !run.begin(now) {
            return;
        }
        run.send(&mut client, now).await;
    }
}

/// A connection that waits for a request.
#[derive(Default)]
struct Slot {
    due: Cell<Option<Instant>>,
    wake: Notify,
}

struct Open {
    run: Rc<Run>,
    slots: Vec<Slot>,
    /// Connections without work; the last one that got idle works next, its caches are warm.
    idle: RefCell<Vec<usize>>,
    /// Requests without a connection.
    queue: RefCell<VecDeque<Instant>>,
    under_way: Cell<usize>,
    answered: Notify,
}

impl Open {
    fn new(run: Rc<Run>, connections: usize) -> Self {
        Self {
            run,
            slots: (0..connections).map(|_| Slot::default()).collect(),
            idle: RefCell::default(),
            queue: RefCell::default(),
            under_way: Cell::new(0),
            answered: Notify::new(),
        }
    }

    /// Hands out requests at their times, then waits for what is under way.
    async fn dispatch(&self, arrivals: Arrivals) -> std::io::Result<()> {
        let mut timer = Timer::new()?;
        let mut overdue = 0;
        for offset in arrivals {
            let Some(due) = self.run.began.checked_add(offset) else {
                break;
            };
            if due >= self.run.ends {
                timer.until(self.run.ends).await?;
            }
            if !self.run.begin(due) {
                break;
            }
            if late(due).is_zero() {
                overdue = 0;
                timer.until(due).await?;
            } else {
                overdue += 1;
                if overdue % AT_ONCE == 0 {
                    yield_now().await;
                }
            }
            self.hand(due);
        }
        let patience = self.run.plan.timeout + Duration::from_secs(1);
        let _ = timeout(patience, self.all_answered()).await;
        let counts = |due: &&Instant| **due >= self.run.counts_from;
        let never_sent = self.queue.borrow().iter().filter(counts).count() as u64;
        let mut tally = self.run.tally.borrow_mut();
        tally.never_sent = never_sent;
        tally.unfinished = self.run.begun.get() - tally.ended() - never_sent;
        Ok(())
    }

    async fn all_answered(&self) {
        while self.under_way.get() > 0 {
            self.answered.notified().await;
        }
    }

    fn hand(&self, due: Instant) {
        let counts = due >= self.run.counts_from;
        if counts {
            self.run.tally.borrow_mut().slipped(late(due));
        }
        self.under_way.set(self.under_way.get() + 1);
        if let Some(id) = self.idle.borrow_mut().pop() {
            self.slots[id].due.set(Some(due));
            self.slots[id].wake.notify_one();
            return;
        }
        let mut queue = self.queue.borrow_mut();
        queue.push_back(due);
        if counts {
            let mut tally = self.run.tally.borrow_mut();
            tally.waited += 1;
            tally.longest_wait = tally.longest_wait.max(queue.len());
        }
    }

    async fn work(self: Rc<Self>, id: usize, mut client: Client) {
        loop {
            let waiting = self.queue.borrow_mut().pop_front();
            let due = match waiting {
                Some(due) => due,
                None => self.wait(id).await,
            };
            self.run.send(&mut client, due).await;
            self.under_way.set(self.under_way.get() - 1);
            self.answered.notify_one();
        }
    }

    async fn wait(&self, id: usize) -> Instant {
        self.idle.borrow_mut().push(id);
        loop {
            self.slots[id].wake.notified().await;
            if let Some(due) = self.slots[id].due.take() {
                return due;
            }
        }
    }
}
