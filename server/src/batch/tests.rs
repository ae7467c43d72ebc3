use proptest::prelude::*;

use super::*;

/// A request of the tests: `kind` 0 runs alone.
#[derive(Clone, Debug, PartialEq)]
struct Ask {
    number: usize,
    rows: usize,
    kind: u8,
    since: Instant,
    deadline: Option<Instant>,
    gone: bool,
}

impl Waiting for Ask {
    fn rows(&self) -> usize {
        self.rows
    }

    fn joins(&self, other: &Self) -> bool {
        self.kind != 0 && self.kind == other.kind
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn is_abandoned(&self) -> bool {
        self.gone
    }
}

fn ask(number: usize, rows: usize, since: Instant) -> Ask {
    Ask {
        number,
        rows,
        kind: 1,
        since,
        deadline: None,
        gone: false,
    }
}

fn policy(max_rows: usize, preferred: &[usize], delay_ms: u64) -> Policy {
    Policy {
        max_rows,
        preferred: preferred.to_vec(),
        max_delay: Duration::from_millis(delay_ms),
    }
}

fn numbers(asks: &[Ask]) -> Vec<usize> {
    asks.iter().map(|ask| ask.number).collect()
}

/// A queue of one level with requests of so many rows, that came one millisecond after the other.
fn queue_of(rows: &[usize], start: Instant) -> Queue<Ask> {
    let mut queue = Queue::new(1);
    for (number, rows) in rows.iter().enumerate() {
        let since = start + Duration::from_millis(number as u64);
        queue.push(0, ask(number, *rows, since));
    }
    queue
}

#[test]
fn without_a_delay_what_waits_runs_together_up_to_the_bound() {
    let start = Instant::now();
    let table: [(&[usize], usize, &[usize]); 6] = [
        (&[1, 1, 1], 8, &[0, 1, 2]),
        (&[1, 1, 1], 2, &[0, 1]),
        (&[1, 1, 1], 1, &[0]),
        (&[3, 2, 4, 1], 8, &[0, 1]),
        (&[9, 1], 8, &[0]),
        (&[8, 1], 8, &[0]),
    ];
    for (rows, max_rows, expected) in table {
        let mut queue = queue_of(rows, start);
        let batch = next_batch(&mut queue, &policy(max_rows, &[], 0), start);
        assert_eq!(numbers(&batch.run), expected, "{rows:?} {max_rows}");
        assert_eq!(batch.wait, None);
        assert_eq!(queue.len(), rows.len() - expected.len());
    }
    let batch = next_batch(&mut queue_of(&[], start), &policy(8, &[], 5), start);
    assert!(batch.run.is_empty() && batch.wait.is_none());
}

#[test]
fn a_delay_holds_requests_back_until_it_has_passed_or_the_batch_is_full() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let held = policy(4, &[], 10);
    let mut queue = queue_of(&[1, 1], start);
    let batch = next_batch(&mut queue, &held, at(5));
    assert_eq!((batch.run.len(), batch.wait), (0, Some(at(10))));
    assert_eq!(queue.len(), 2, "what waits stays in the queue");
    let batch = next_batch(&mut queue, &held, at(10));
    assert_eq!((numbers(&batch.run), batch.wait), (vec![0, 1], None));
    let mut queue = queue_of(&[1, 1, 1, 1, 1], start);
    let batch = next_batch(&mut queue, &held, at(5));
    assert_eq!(numbers(&batch.run), [0, 1, 2, 3], "full at once");
    // Three rows more do not fit: nothing better will come.
    let mut queue = queue_of(&[2, 3], start);
    assert_eq!(numbers(&next_batch(&mut queue, &held, at(1)).run), [0]);
}

#[test]
fn a_deadline_that_would_pass_while_it_is_held_back_sends_a_request_off() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let mut queue = queue_of(&[1, 1], start);
    queue.levels[0][1].deadline = Some(at(9));
    let batch = next_batch(&mut queue, &policy(4, &[], 10), at(2));
    assert_eq!(numbers(&batch.run), [0, 1]);
}

#[test]
fn preferred_sizes_go_at_once_and_others_after_the_delay() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let preferred = policy(8, &[2, 4], 10);
    let mut queue = queue_of(&[1; 5], start);
    assert_eq!(next_batch(&mut queue, &preferred, at(5)).run.len(), 4);
    let batch = next_batch(&mut queue, &preferred, at(5));
    assert_eq!((batch.run.len(), batch.wait), (0, Some(at(14))));
    assert_eq!(next_batch(&mut queue, &preferred, at(14)).run.len(), 1);
    // Without a delay any number goes, a preferred one first.
    let mut queue = queue_of(&[1; 3], start);
    let at_once = policy(8, &[2], 0);
    assert_eq!(next_batch(&mut queue, &at_once, start).run.len(), 2);
    assert_eq!(next_batch(&mut queue, &at_once, start).run.len(), 1);
}

#[test]
fn a_complete_kind_goes_before_one_that_is_held_back() {
    let start = Instant::now();
    let mut queue = queue_of(&[1, 1, 1, 1], start);
    for index in [1, 3] {
        queue.levels[0][index].kind = 2;
    }
    queue.levels[0][2].kind = 0;
    let held = policy(2, &[], 100);
    assert_eq!(numbers(&next_batch(&mut queue, &held, start).run), [1, 3]);
    assert_eq!(
        numbers(&next_batch(&mut queue, &held, start).run),
        [2],
        "what runs alone has nothing to wait for"
    );
    assert!(next_batch(&mut queue, &held, start).wait.is_some());
}

#[test]
fn clients_that_left_and_deadlines_that_passed_are_dropped() {
    let start = Instant::now();
    let mut queue = queue_of(&[1; 4], start);
    queue.levels[0][0].gone = true;
    queue.levels[0][2].deadline = Some(start);
    let batch = next_batch(&mut queue, &policy(8, &[], 0), start);
    assert_eq!(numbers(&batch.dropped), [0, 2]);
    assert_eq!(numbers(&batch.run), [1, 3]);
    assert!(queue.is_empty());
}

#[test]
fn a_higher_level_goes_first_and_a_lower_one_never_stands_still() {
    let start = Instant::now();
    let mut queue = Queue::new(3);
    for number in 0..40 {
        queue.push(0, ask(number, 1, start + Duration::from_millis(100)));
    }
    queue.push(1, ask(100, 1, start + Duration::from_millis(50)));
    queue.push(2, ask(200, 1, start));
    queue.push(7, ask(201, 1, start + Duration::from_millis(60)));
    let alone = Policy::ALONE;
    let order: Vec<usize> = (0..43)
        .flat_map(|_| numbers(&next_batch(&mut queue, &alone, start).run))
        .collect();
    let place = |number: usize| order.iter().position(|at| *at == number).unwrap();
    assert_eq!(place(200), PATIENCE as usize);
    assert_eq!(place(100), 2 * PATIENCE as usize + 1);
    assert_eq!(place(201), 3 * PATIENCE as usize + 2);
    assert_eq!(order[..8], [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn room_that_a_level_leaves_is_filled_from_the_others() {
    let start = Instant::now();
    let mut queue = Queue::new(2);
    queue.push(1, ask(10, 1, start));
    queue.push(0, ask(0, 1, start + Duration::from_millis(1)));
    queue.push(1, ask(11, 1, start + Duration::from_millis(2)));
    let batch = next_batch(&mut queue, &policy(4, &[], 0), start);
    assert_eq!(numbers(&batch.run), [0, 10, 11]);
}

prop_compose! {
    fn arrivals()(
        asks in prop::collection::vec(
            (0..3_usize, 0..6_usize, 0..4_u8, 0..50_u64, prop::option::of(0..200_u64), prop::bool::weighted(0.1)),
            0..60,
        )
    ) -> Vec<(usize, usize, u8, u64, Option<u64>, bool)> {
        asks
    }
}

proptest! {
    #[test]
    fn every_request_leaves_once_within_the_bounds_unmixed_and_in_order(
        asks in arrivals(),
        max_rows in 1..9_usize,
        preferred in prop::collection::btree_set(1..9_usize, 0..3),
        delay in 0..40_u64,
        step in 1..30_u64,
    ) {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let preferred = preferred.into_iter().filter(|rows| *rows <= max_rows).collect();
        let policy = Policy { max_rows, preferred, max_delay: Duration::from_millis(delay) };
        let mut coming: Vec<(usize, Ask)> = asks
            .iter()
            .enumerate()
            .map(|(number, (level, rows, kind, since, deadline, gone))| {
                let deadline = deadline.map(at);
                let (rows, kind, gone, since) = (*rows, *kind, *gone, at(*since));
                (*level, Ask { number, rows, kind, since, deadline, gone })
            })
            .collect();
        coming.sort_by_key(|(_, ask)| ask.since);
        let levels: Vec<usize> = asks.iter().map(|ask| ask.0).collect();
        let mut queue = Queue::new(3);
        let mut left = vec![false; asks.len()];
        let mut served: Vec<Ask> = Vec::new();
        let mut clock = 0;
        let mut coming = coming.into_iter().peekable();
        while coming.peek().is_some() || !queue.is_empty() {
            let now = at(clock);
            while let Some((level, ask)) = coming.next_if(|(_, ask)| ask.since <= now) {
                queue.push(level, ask);
            }
            let before = queue.len();
            let batch = next_batch(&mut queue, &policy, now);
            prop_assert_eq!(before, queue.len() + batch.run.len() + batch.dropped.len());
            for ask in batch.run.iter().chain(&batch.dropped) {
                prop_assert!(!left[ask.number], "{} left twice", ask.number);
                left[ask.number] = true;
            }
            for ask in &batch.dropped {
                prop_assert!(ask.gone || ask.deadline.is_some_and(|deadline| deadline <= now));
            }
            for ask in &batch.run {
                prop_assert!(!ask.gone && ask.deadline.is_none_or(|deadline| deadline > now));
            }
            if batch.run.len() > 1 {
                let rows: usize = batch.run.iter().map(|ask| ask.rows).sum();
                prop_assert!(rows <= max_rows, "{rows} rows");
                prop_assert!(batch.run.iter().all(|ask| ask.joins(&batch.run[0])));
            }
            if batch.run.is_empty() {
                // It says when to come back exactly when something waits, and that is never too late.
                prop_assert_eq!(batch.wait.is_some(), !queue.is_empty());
                if let Some(wait) = batch.wait {
                    prop_assert!(wait > now && wait <= now + policy.max_delay);
                }
                clock += step;
            } else {
                prop_assert_eq!(batch.wait, None);
                prop_assert!(
                    batch.run.iter().all(|ask| policy.max_delay.is_zero() || now >= ask.since)
                );
            }
            served.extend(batch.run);
        }
        prop_assert!(left.iter().all(|left| *left), "all left");
        // Of one level and kind the earlier one goes first; those that came in the same millisecond stand in
        // the order in which they were pushed, which is that of their numbers.
        for (index, late) in served.iter().enumerate() {
            for early in &served[..index] {
                if late.kind == early.kind && levels[late.number] == levels[early.number] {
                    prop_assert!(
                        (early.since, early.number) < (late.since, late.number),
                        "{} after {}", late.number, early.number
                    );
                }
            }
        }
    }

    #[test]
    fn a_level_that_waits_begins_one_of_nine_batches(
        kinds in prop::collection::vec(0..3_u8, 200..400),
        max_rows in 1..4_usize,
    ) {
        let start = Instant::now();
        let mut queue = Queue::new(2);
        for (number, kind) in kinds.iter().enumerate() {
            let mut high = ask(number, 1, start);
            high.kind = *kind;
            queue.push(0, high);
        }
        let mut low = ask(1000, 1, start);
        low.kind = 9;
        queue.push(1, low);
        let policy = policy(max_rows, &[], 0);
        let mut batches = 0;
        loop {
            let batch = next_batch(&mut queue, &policy, start);
            if numbers(&batch.run) == [1000] {
                break;
            }
            batches += 1;
            prop_assert!(batches <= PATIENCE);
        }
    }
}
