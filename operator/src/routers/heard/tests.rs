use super::*;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const DAY: i64 = 86_400;

fn cats() -> Key {
    key("demo/cats").expect("a key")
}

/// A router that began so many seconds after 1970: its name and what it says of `demo/cats`.
fn frame(name: &str, started: i64, cats: Option<Service>) -> Frame {
    let cats = cats.map(|cats| ("demo/cats".to_owned(), cats));
    Frame {
        router: name.into(),
        started: Timestamp::from_second(started).expect("a time"),
        services: cats.into_iter().collect(),
        gone: Vec::new(),
    }
}

/// The generation that it follows, and counts: generation, revision, requests, bad ones.
fn service(generation: u64, counts: &[(u64, &str, u64, u64)]) -> Service {
    let mut service = Service {
        generation: Some(generation),
        ..Service::default()
    };
    for (generation, revision, requests, bad) in counts {
        let outcome = Outcome {
            requests: *requests,
            bad: *bad,
            latency: BTreeMap::from([(5, *requests)]),
            ..Outcome::default()
        };
        let revisions = service.generations.entry(*generation).or_default();
        revisions.insert((*revision).into(), outcome);
    }
    service
}

/// Routers that all began a day before, heard at so many seconds.
struct Ear {
    heard: Heard,
    epoch: Instant,
}

impl Ear {
    fn new(expected: &[IpAddr]) -> Self {
        let epoch = Instant::now();
        let mut heard = Heard::new(epoch);
        heard.expect(expected.iter().copied().collect());
        Self { heard, epoch }
    }

    fn at(&self, second: u64) -> Instant {
        self.epoch + Duration::from_secs(second)
    }

    fn hear(&mut self, from: IpAddr, second: u64, is_first: bool, frame: Frame) -> Vec<Key> {
        let came = Came {
            from,
            is_first,
            at: self.at(second),
            now: Timestamp::from_second(DAY + second.cast_signed()).expect("a time"),
        };
        self.heard.take(&came, frame)
    }

    fn stats(&self, second: u64) -> Routers {
        self.heard.stats(&cats(), self.at(second))
    }

    fn recent(&self, second: u64) -> Vec<(String, u64, u64)> {
        let recent = self.stats(second).recent.into_iter();
        recent
            .map(|(name, outcome)| (name, outcome.requests, outcome.bad))
            .collect()
    }
}

#[test]
fn nothing_is_complete_before_every_router_that_may_have_requests_was_heard_of() {
    let mut ear = Ear::new(&[A, B]);
    assert_eq!(ear.stats(0), Routers::default());
    ear.hear(A, 0, true, frame("a", 0, Some(service(3, &[]))));
    assert!(!ear.stats(1).complete);
    ear.hear(B, 1, true, frame("b", 0, Some(service(3, &[]))));
    assert!(ear.stats(5).complete);
    assert_eq!(ear.stats(5).routers.len(), 2);
    let late = ear.stats(6);
    assert!(!late.complete, "a was silent for six seconds");
    assert_eq!(
        (late.routers.len(), late.routers[0].name.as_str()),
        (1, "b")
    );
    ear.heard.expect(BTreeSet::from([B]));
    assert!(ear.stats(6).complete, "a is gone");
    ear.heard.expect(BTreeSet::new());
    assert!(!ear.stats(6).complete, "no router is not all routers");
}

#[test]
fn a_router_that_is_not_known_to_be_expected_makes_nothing_complete() {
    let mut ear = Ear::new(&[]);
    ear.heard.expected = None;
    ear.hear(A, 0, true, frame("a", 0, None));
    assert!(!ear.stats(0).complete);
    assert!(!ear.heard.expects(A));
}

#[test]
fn a_generation_is_followed_when_every_live_router_says_so() {
    let mut ear = Ear::new(&[A, B]);
    ear.hear(A, 0, true, frame("a", 0, Some(service(3, &[]))));
    assert_eq!(ear.stats(0).followed, Some(3), "the only one that is live");
    ear.hear(B, 0, true, frame("b", 0, None));
    assert_eq!(ear.stats(0).followed, None, "b does not know the service");
    let moved = ear.hear(B, 1, false, frame("b", 0, Some(service(3, &[]))));
    assert_eq!((moved, ear.stats(1).followed), (vec![cats()], Some(3)));
    let moved = ear.hear(A, 2, false, frame("a", 0, Some(service(4, &[]))));
    assert_eq!((moved, ear.stats(2).followed), (vec![], None));
    let moved = ear.hear(B, 3, false, frame("b", 0, Some(service(4, &[]))));
    assert_eq!((moved, ear.stats(3).followed), (vec![cats()], Some(4)));
    ear.hear(B, 6, false, frame("b", 0, None));
    assert_eq!(ear.stats(8).followed, Some(4), "b alone is live");
    assert_eq!(ear.stats(60).followed, None);
}

#[test]
fn what_a_frame_does_not_name_is_as_before_but_for_the_first() {
    let mut ear = Ear::new(&[A]);
    let counts = [(3, "cats-1", 10, 1)];
    ear.hear(A, 0, true, frame("a", 0, Some(service(3, &counts))));
    ear.hear(A, 1, false, frame("a", 0, None));
    let told = ear.stats(1);
    assert_eq!(told.routers[0].generations, service(3, &counts).generations);
    let mut gone = frame("a", 0, None);
    gone.gone.push("demo/cats".into());
    ear.hear(A, 2, false, gone);
    assert_eq!(ear.stats(2).routers[0].generations, BTreeMap::new());
    ear.hear(A, 3, false, frame("a", 0, Some(service(3, &counts))));
    ear.hear(A, 4, true, frame("a", 0, None));
    assert_eq!(ear.stats(4).routers[0].generation, None);
}

#[test]
fn recent_is_what_was_added_since_we_listen() {
    let mut ear = Ear::new(&[A, B]);
    let say = |requests, bad| Some(service(3, &[(3, "cats-1", requests, bad)]));
    ear.hear(A, 0, true, frame("a", 0, say(1000, 500)));
    assert_eq!(ear.recent(0), [], "nobody knows when that was");
    ear.hear(A, 1, false, frame("a", 0, say(1010, 501)));
    ear.hear(B, 1, true, frame("b", DAY - 60, say(5, 0)));
    let cats = |requests, bad| vec![("cats-1".to_owned(), requests, bad)];
    assert_eq!(ear.recent(1), cats(15, 1), "b began a minute ago");
    // The connection broke, and the router went on.
    ear.hear(A, 100, true, frame("a", 0, say(1030, 501)));
    assert_eq!(ear.recent(100), cats(35, 1));
    // It began anew.
    ear.hear(A, 200, true, frame("a", DAY + 190, say(2, 2)));
    assert_eq!(ear.recent(200), cats(37, 3));
    assert_eq!(
        ear.recent(600),
        cats(22, 2),
        "what came in the first half minute is over"
    );
    assert_eq!(ear.recent(900), []);
    ear.heard.forget(ear.at(900));
    assert!(ear.heard.recent.is_empty());
}

#[test]
fn a_new_generation_and_a_service_that_came_again_count_from_nothing() {
    let mut ear = Ear::new(&[A]);
    let old = (3, "cats-1", 1000, 0);
    ear.hear(A, 0, true, frame("a", 0, Some(service(3, &[old]))));
    let new = (4, "cats-1", 4, 1);
    ear.hear(A, 1, false, frame("a", 0, Some(service(4, &[old, new]))));
    assert_eq!(ear.recent(1), [("cats-1".to_owned(), 4, 1)]);
    let mut again = frame("a", 0, Some(service(1, &[(1, "cats-1", 2, 0)])));
    again.gone.push("demo/cats".into());
    ear.hear(A, 2, false, again);
    assert_eq!(ear.recent(2), [("cats-1".to_owned(), 6, 1)]);
}

#[test]
fn a_router_that_nobody_expects_is_forgotten_after_a_while() {
    let mut ear = Ear::new(&[A]);
    for from in [A, B] {
        ear.hear(from, 0, true, frame("x", 0, None));
    }
    ear.heard.forget(ear.at(60));
    assert_eq!(ear.heard.routers.len(), 2);
    ear.heard.forget(ear.at(61));
    assert_eq!(ear.heard.routers.keys().collect::<Vec<_>>(), [&A]);
}

#[test]
fn what_no_router_of_ours_says_is_bounded_or_left_out() {
    let mut ear = Ear::new(&[A]);
    let many: Vec<String> = (0..100).map(|n| format!("r-{n}")).collect();
    let counts: Vec<_> = many
        .iter()
        .flat_map(|name| (0..10).map(|generation| (generation, &**name, 1, 0)))
        .collect();
    let mut said = frame("a", 0, Some(service(3, &counts)));
    said.services.insert("no key".into(), Service::default());
    for n in 0..SERVICES {
        said.services.insert(format!("x/{n}"), Service::default());
    }
    ear.hear(A, 0, true, said);
    let generations = &ear.stats(0).routers[0].generations;
    assert_eq!(generations.keys().collect::<Vec<_>>(), [&7, &8, &9]);
    assert!(
        generations
            .values()
            .all(|revisions| revisions.len() == REVISIONS)
    );
    assert_eq!(ear.heard.routers[&A].services.len(), SERVICES);
}
