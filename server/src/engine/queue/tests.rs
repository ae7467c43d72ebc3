//! The queue by itself, and, with `ortolan_loom`, threads that share it in every order in which they may run.

use std::time::Instant;

use super::*;

/// A job that says when it was too late for it.
struct Item {
    kind: u8,
    since: Instant,
    answered: std::sync::mpsc::Sender<u8>,
}

impl Item {
    fn new(kind: u8, answered: &std::sync::mpsc::Sender<u8>) -> Self {
        Self {
            kind,
            since: Instant::now(),
            answered: answered.clone(),
        }
    }
}

impl Waiting for Item {
    fn rows(&self) -> usize {
        1
    }

    fn joins(&self, other: &Self) -> bool {
        self.kind == other.kind
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Whoever sent kind 0 has left.
    fn is_abandoned(&self) -> bool {
        self.kind == 0
    }
}

impl Late for Item {
    fn answer(self) {
        let _ = self.answered.send(self.kind);
    }
}

#[test]
fn a_thread_is_called_once_until_it_comes_and_each_that_waits_can_be_called() {
    let mut idle = Idle::default();
    assert!(!idle.call(), "nobody waits");
    idle.waiting = 2;
    assert!(idle.call() && idle.call());
    assert!(!idle.call(), "both are on their way");
    idle.leave();
    assert!(!idle.call(), "the other one still is");
    idle.leave();
    assert!(!idle.call(), "nobody waits");
}

#[test]
fn a_thread_that_comes_by_itself_leaves_nobody_uncalled() {
    let mut idle = Idle {
        waiting: 2,
        called: 1,
    };
    // Of two one was called, and the other one comes.
    idle.leave();
    assert!(idle.call(), "whoever still waits hears of the next");
    idle.leave();
    assert_eq!((idle.waiting, idle.called), (0, 0));
}

#[cfg(not(ortolan_loom))]
mod alone {
    use super::*;

    #[test]
    fn a_full_queue_has_room_again_once_a_client_has_left() {
        let shared = Shared::new(1, 1);
        let (answered, late) = std::sync::mpsc::channel();
        shared.push(0, Item::new(1, &answered)).unwrap();
        let busy = shared.push(0, Item::new(2, &answered));
        assert!(matches!(busy, Err(RunError::Busy { waiting: 1 })));
        assert_eq!(shared.drain().len(), 1);
        shared.push(0, Item::new(0, &answered)).unwrap();
        shared.push(0, Item::new(2, &answered)).unwrap();
        assert_eq!(late.try_recv(), Ok(0));
        assert_eq!(shared.next().unwrap()[0].kind, 2);
    }
}

#[cfg(ortolan_loom)]
mod in_every_order {
    use loom::{sync::Arc, thread};

    use super::*;

    fn take_all(shared: &Arc<Shared<Item>>) -> thread::JoinHandle<usize> {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            std::iter::from_fn(|| shared.next())
                .map(|jobs| jobs.len())
                .sum()
        })
    }

    fn together(max_rows: usize) -> Policy {
        Policy {
            max_rows,
            preferred: Vec::new(),
            max_delay: std::time::Duration::ZERO,
        }
    }

    /// `kinds` are pushed while two threads take; then the queue is closed. Loom fails a run in which a thread
    /// sleeps for ever.
    fn each_is_taken_once(policy: &Policy, kinds: &'static [u8]) {
        let policy = policy.clone();
        loom::model(move || {
            let shared = Arc::new(Shared::new(kinds.len(), 1));
            shared.set_policy(policy.clone());
            let (answered, late) = std::sync::mpsc::channel();
            let threads = [take_all(&shared), take_all(&shared)];
            for kind in kinds {
                shared.push(0, Item::new(*kind, &answered)).unwrap();
            }
            shared.close();
            let taken: usize = threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum();
            assert_eq!(taken + late.try_iter().count(), kinds.len());
            assert!(matches!(
                shared.push(0, Item::new(1, &answered)),
                Err(RunError::Stopping)
            ));
        });
    }

    #[test]
    fn jobs_that_run_alone_are_taken_once_each() {
        each_is_taken_once(&Policy::ALONE, &[1, 1]);
    }

    #[test]
    fn jobs_that_run_together_are_taken_once_each() {
        each_is_taken_once(&together(2), &[1, 2, 1]);
    }

    #[test]
    fn jobs_whose_clients_left_are_answered_once_each() {
        each_is_taken_once(&together(2), &[0, 1]);
    }

    #[test]
    fn a_job_is_taken_before_the_end_although_nobody_closes_the_queue() {
        loom::model(|| {
            let shared = Arc::new(Shared::new(2, 1));
            let (answered, _late) = std::sync::mpsc::channel();
            let taker = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.next().map_or(0, |jobs| jobs.len()))
            };
            shared.push(0, Item::new(1, &answered)).unwrap();
            assert_eq!(taker.join().unwrap(), 1);
        });
    }

    /// Each thread takes one job and keeps it until the other one has one, too: had one been left to sleep, both would.
    #[test]
    fn two_jobs_are_taken_by_two_threads_at_once() {
        loom::model(|| {
            let shared = Arc::new(Shared::new(2, 1));
            let (answered, _late) = std::sync::mpsc::channel();
            let busy = Arc::new((Mutex::new(0), Condvar::new()));
            let threads = [(); 2].map(|()| {
                let (shared, busy) = (Arc::clone(&shared), Arc::clone(&busy));
                thread::spawn(move || {
                    let _jobs: Option<Vec<Item>> = shared.next();
                    let (count, both) = &*busy;
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    both.notify_all();
                    while *count < 2 {
                        count = both.wait(count).unwrap();
                    }
                })
            });
            for _ in 0..2 {
                shared.push(0, Item::new(1, &answered)).unwrap();
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn with_the_end_and_a_drain_at_once_a_job_goes_to_one_of_them() {
        loom::model(|| {
            let shared = Arc::new(Shared::new(2, 1));
            let (answered, _late) = std::sync::mpsc::channel();
            let taker = take_all(&shared);
            shared.push(0, Item::new(1, &answered)).unwrap();
            shared.close();
            let drained = shared.drain().len();
            assert_eq!(taker.join().unwrap() + drained, 1);
        });
    }
}
