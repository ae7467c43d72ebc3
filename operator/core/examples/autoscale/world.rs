//! Routers and pods, request by request: events in the order of their time, and a fixed seed.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
};

use ortolan_core::autoscale::batching::Batches;
use ortolan_stats::latency;
use rand_distr::{Distribution as _, Exp1, LogNormal, Uniform};
use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng as _};

use super::source::Source;

/// Requests that a pod has at most; more wait at the router.
const CONCURRENCY: usize = 64;
/// A request that waited for so long, in seconds, is answered with 503.
const TIMEOUT: f64 = 10.0;

/// How a pod executes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// So many at a time, of so many seconds each; log-normal with this squared variation.
    Slots { parallel: u32, mean: f64, cv2: f64 },
    /// Up to so many at a time, in `alpha + beta·n` seconds, give or take a tenth.
    Batch { most: u32, alpha: f64, beta: f64 },
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The share of a pod's scrapes that fail.
    pub lost_scrapes: f64,
    /// Counters of every third pod and of the router begin anew so often, in seconds; 0 for never.
    pub resets: u32,
}

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    pub name: &'static str,
    pub source: Source,
    pub kind: Kind,
    /// From a pod's creation to its readiness, in seconds, give or take a tenth.
    pub start_up: f64,
    /// Pods that nodes take.
    pub nodes: u32,
    pub faults: Faults,
    /// What is looked at, in seconds, after the warm-up.
    pub seconds: u32,
}

/// Seconds within which 95 % are to be answered.
pub const OBJECTIVE: f64 = 0.049_152;

pub struct Pod {
    pub name: u32,
    pub created: f64,
    pub ready: Option<f64>,
    pub node: bool,
    /// Since when its counters count.
    pub started: f64,
    pub service: Vec<u64>,
    pub batches: Batches,
    drains: bool,
    waiting: VecDeque<f64>,
    running: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Event {
    Arrival,
    Ready(u32),
    /// A pod's request that arrived then and ran so long.
    Done(u32, f64, f64),
    BatchDone(u32, f64),
}

struct Timed(f64, u64, Event);

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

/// What happened in a second.
#[derive(Clone, Debug)]
pub struct Second {
    pub arrivals: u64,
    pub ended: u64,
    pub slower: u64,
    /// Requests in flight or held, on average.
    pub in_flight: f64,
    pub latency: Vec<u32>,
}

impl Default for Second {
    fn default() -> Self {
        Self {
            arrivals: 0,
            ended: 0,
            slower: 0,
            in_flight: 0.0,
            latency: vec![0; latency::BOUNDS + 1],
        }
    }
}

pub struct World {
    pub scenario: Scenario,
    pub now: f64,
    pub pods: Vec<Pod>,
    /// The last minute, second by second, the newest last.
    pub minute: VecDeque<Second>,
    /// Counters of the router since `router_started`.
    pub arrivals: u64,
    pub latency: Vec<u64>,
    pub router_started: f64,
    pub held: VecDeque<f64>,
    pub random: Pcg64Mcg,
    in_pods: u64,
    second: Second,
    since: f64,
    events: BinaryHeap<Reverse<Timed>>,
    serial: u64,
    names: u32,
    noise: LogNormal<f64>,
}

impl World {
    pub fn new(scenario: Scenario, replicas: u32, seed: u64) -> Self {
        let cv2: f64 = match scenario.kind {
            Kind::Slots { cv2, .. } => cv2,
            Kind::Batch { .. } => 0.01,
        };
        let sigma = (1.0 + cv2).ln().sqrt();
        let mut world = Self {
            scenario,
            now: 0.0,
            pods: Vec::new(),
            minute: VecDeque::new(),
            arrivals: 0,
            latency: vec![0; latency::BOUNDS + 1],
            router_started: 0.0,
            held: VecDeque::new(),
            random: Pcg64Mcg::seed_from_u64(seed),
            in_pods: 0,
            second: Second::default(),
            since: 0.0,
            events: BinaryHeap::new(),
            serial: 0,
            names: 0,
            noise: LogNormal::new(-0.5 * sigma * sigma, sigma).expect("a variation"),
        };
        world.scale(replicas);
        for at in 0..world.pods.len() {
            world.pods[at].ready = Some(0.0);
        }
        world.events.clear();
        world.next_arrival();
        world
    }

    fn at(&mut self, time: f64, event: Event) {
        self.serial += 1;
        self.events.push(Reverse(Timed(time, self.serial, event)));
    }

    fn uniform(&mut self) -> f64 {
        Uniform::new(0.0, 1.0)
            .expect("a range")
            .sample(&mut self.random)
    }

    /// Pods that run or start.
    pub fn replicas(&self) -> u32 {
        self.count(|pod| !pod.drains && pod.node)
    }

    /// Pods that there are to be, those without a node included.
    pub fn wanted(&self) -> u32 {
        self.count(|pod| !pod.drains)
    }

    pub fn ready(&self) -> u32 {
        self.count(|pod| pod.serves())
    }

    fn count(&self, of: impl Fn(&Pod) -> bool) -> u32 {
        self.pods.iter().filter(|pod| of(pod)).count() as u32
    }

    pub fn in_flight(&self) -> u64 {
        self.in_pods
    }

    /// Gives every pod that waits for a node one, as far as there are some.
    fn schedule(&mut self) {
        let mut free = self
            .scenario
            .nodes
            .saturating_sub(self.count(|pod| pod.node));
        for at in 0..self.pods.len() {
            if free > 0 && !self.pods[at].node {
                free -= 1;
                self.pods[at].node = true;
                let takes = self.scenario.start_up * (0.9 + 0.2 * self.uniform());
                let name = self.pods[at].name;
                self.at(self.now + takes, Event::Ready(name));
            }
        }
    }

    /// There are to be so many pods: those that do not serve yet go first.
    pub fn scale(&mut self, replicas: u32) {
        let have = self.wanted();
        for _ in have..replicas {
            self.names += 1;
            self.pods.push(Pod {
                name: self.names,
                created: self.now,
                ready: None,
                node: false,
                started: self.now,
                service: vec![0; latency::BOUNDS + 1],
                batches: Batches::default(),
                drains: false,
                waiting: VecDeque::new(),
                running: Vec::new(),
            });
        }
        for _ in replicas..have {
            let newest = |pod: &&mut Pod| {
                (!pod.drains).then_some((!pod.node, pod.ready.is_none(), pod.name))
            };
            let last = self.pods.iter_mut().filter(|pod| !pod.drains);
            if let Some(pod) = last.max_by_key(newest) {
                pod.drains = true;
            }
        }
        self.sweep();
        self.schedule();
    }

    fn sweep(&mut self) {
        self.pods
            .retain(|pod| !pod.drains || !pod.running.is_empty() || !pod.waiting.is_empty());
    }

    /// Lets a second pass.
    pub fn advance(&mut self) {
        let until = self.now + 1.0;
        while self
            .events
            .peek()
            .is_some_and(|Reverse(next)| next.0 < until)
        {
            let Some(Reverse(Timed(time, _, event))) = self.events.pop() else {
                break;
            };
            self.pass(time);
            match event {
                Event::Arrival => self.arrive(),
                Event::Ready(name) => self.become_ready(name),
                Event::Done(name, arrived, took) => self.done(name, arrived, took),
                Event::BatchDone(name, took) => self.batch_done(name, took),
            }
        }
        self.pass(until);
        self.sweep();
        self.schedule();
        self.reset();
        let second = std::mem::take(&mut self.second);
        self.minute.push_back(second);
        if self.minute.len() > 60 {
            self.minute.pop_front();
        }
    }

    fn pass(&mut self, time: f64) {
        let many = self.in_pods + self.held.len() as u64;
        self.second.in_flight += many as f64 * (time - self.since);
        self.since = time;
        self.now = time;
    }

    fn reset(&mut self) {
        let every = self.scenario.faults.resets;
        if every == 0 || !(self.now.round() as u32).is_multiple_of(every) {
            return;
        }
        self.arrivals = 0;
        self.latency.fill(0);
        self.router_started = self.now;
        for pod in self.pods.iter_mut().filter(|pod| pod.name % 3 == 0) {
            pod.started = self.now;
            pod.service.fill(0);
            pod.batches = Batches::default();
        }
    }

    /// By thinning: chances of the highest rate within the next seconds, of which the present rate's share counts.
    fn next_arrival(&mut self) {
        let mut time = self.now;
        loop {
            let most = self.scenario.source.most(time, time + 2.0).max(0.1);
            let wait: f64 = Exp1.sample(&mut self.random);
            let wait = wait / most;
            if wait > 2.0 {
                time += 2.0;
                continue;
            }
            time += wait;
            if self.uniform() * most <= self.scenario.source.rate(time) {
                break;
            }
        }
        self.at(time, Event::Arrival);
    }

    fn arrive(&mut self) {
        self.arrivals += 1;
        self.second.arrivals += 1;
        match self.choose() {
            Some(at) => self.give(at, self.now),
            None => self.held.push_back(self.now),
        }
        self.next_arrival();
    }

    /// Of two pods the one with fewer requests.
    fn choose(&mut self) -> Option<usize> {
        let serving = self.pods.iter().enumerate().filter(|(_, pod)| pod.serves());
        let ready: Vec<usize> = serving.map(|(at, _)| at).collect();
        let pick = |share: f64| ready.get((share * ready.len() as f64) as usize).copied();
        let (one, two) = (pick(self.uniform())?, pick(self.uniform())?);
        let at = match self.pods[one].load() <= self.pods[two].load() {
            true => one,
            false => two,
        };
        (self.pods[at].load() < CONCURRENCY).then_some(at)
    }

    fn give(&mut self, at: usize, arrived: f64) {
        self.in_pods += 1;
        self.pods[at].waiting.push_back(arrived);
        self.run(at);
    }

    /// Starts what a pod has room for.
    fn run(&mut self, at: usize) {
        match self.scenario.kind {
            Kind::Slots { parallel, mean, .. } => {
                while self.pods[at].running.len() < parallel as usize {
                    let Some(arrived) = self.next_waiting(at) else {
                        break;
                    };
                    let took = mean * self.noise.sample(&mut self.random);
                    self.pods[at].running.push(arrived);
                    let name = self.pods[at].name;
                    self.at(self.now + took, Event::Done(name, arrived, took));
                }
            }
            Kind::Batch { most, alpha, beta } => {
                if !self.pods[at].running.is_empty() {
                    return;
                }
                while self.pods[at].running.len() < most as usize {
                    let Some(arrived) = self.next_waiting(at) else {
                        break;
                    };
                    self.pods[at].running.push(arrived);
                }
                let rows = self.pods[at].running.len();
                if rows > 0 {
                    let took = (alpha + beta * rows as f64) * self.noise.sample(&mut self.random);
                    let name = self.pods[at].name;
                    self.at(self.now + took, Event::BatchDone(name, took));
                }
            }
        }
    }

    fn next_waiting(&mut self, at: usize) -> Option<f64> {
        loop {
            let arrived = self.pods[at].waiting.pop_front()?;
            if self.now - arrived < TIMEOUT {
                return Some(arrived);
            }
            self.in_pods -= 1;
            self.ended(arrived);
        }
    }

    fn become_ready(&mut self, name: u32) {
        if let Some(at) = self.find(name) {
            self.pods[at].ready = Some(self.now);
            self.pods[at].started = self.now;
            self.refill(at);
        }
    }

    fn find(&self, name: u32) -> Option<usize> {
        self.pods.iter().position(|pod| pod.name == name)
    }

    fn done(&mut self, name: u32, arrived: f64, took: f64) {
        let Some(at) = self.find(name) else { return };
        let pod = &mut self.pods[at];
        if let Some(place) = pod.running.iter().position(|one| *one == arrived) {
            pod.running.swap_remove(place);
        }
        pod.service[bucket(took)] += 1;
        self.in_pods -= 1;
        self.ended(arrived);
        self.run(at);
        self.refill(at);
    }

    fn batch_done(&mut self, name: u32, took: f64) {
        let Some(at) = self.find(name) else { return };
        let pod = &mut self.pods[at];
        let batch = std::mem::take(&mut pod.running);
        pod.service[bucket(took)] += batch.len() as u64;
        pod.batches.count(batch.len() as u32, took);
        self.in_pods -= batch.len() as u64;
        for arrived in batch {
            self.ended(arrived);
        }
        self.run(at);
        self.refill(at);
    }

    /// What is held goes to a pod that has room.
    fn refill(&mut self, at: usize) {
        while self.pods[at].serves() && self.pods[at].load() < CONCURRENCY {
            let Some(arrived) = self.held.pop_front() else {
                return;
            };
            match self.now - arrived < TIMEOUT {
                true => self.give(at, arrived),
                false => self.ended(arrived),
            }
        }
    }

    fn ended(&mut self, arrived: f64) {
        let took = self.now - arrived;
        let bucket = bucket(took);
        self.latency[bucket] += 1;
        self.second.latency[bucket] += 1;
        self.second.ended += 1;
        self.second.slower += u64::from(took > OBJECTIVE);
    }
}

fn bucket(seconds: f64) -> usize {
    latency::bucket((seconds * 1e6) as u64)
}

impl Pod {
    pub fn serves(&self) -> bool {
        self.ready.is_some() && !self.drains
    }

    fn load(&self) -> usize {
        self.running.len() + self.waiting.len()
    }
}
