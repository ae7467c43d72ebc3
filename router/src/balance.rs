//! Which pod gets a request: the less busy of two drawn at random, each in turn, or the one that wins for a key.
//!
//! Two random choices come close to the least busy of all without making every router run after the same pod
//! (Mitzenmacher 2001). A pod that has just come warms up: for [`SLOW_START`] its load counts up to ten times, so that it
//! is not flooded because it has nothing yet. Requests with a key (of a session, or of a header) go to the pod that wins for it, as long
//! as it has room (rendezvous hashing: when a pod goes, only its sessions move).

use std::time::Duration;

use crate::split;

/// How long a new pod beside older ones is spared.
pub const SLOW_START: Duration = Duration::from_secs(10);
/// The least share of a pod that has just come.
const COLD: f64 = 0.1;

/// How gladly a pod is taken, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing speaks against it.
    Good,
    /// It is left out, for requests to it failed of late.
    Out,
    /// It failed this very request: any other pod is tried before it.
    FailedThis,
}

/// What is known of a pod when one is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Requests that this router has there.
    pub outstanding: u32,
    /// Whether it may get one more.
    pub has_room: bool,
    /// Whether to go elsewhere if possible.
    pub standing: Standing,
    /// 0.1 when it has just come, 1 after [`SLOW_START`].
    pub warmth: f64,
}

impl View {
    fn cost(&self) -> f64 {
        (f64::from(self.outstanding) + 1.0) / self.warmth
    }

    const fn is_good(&self) -> bool {
        self.has_room && matches!(self.standing, Standing::Good)
    }
}

/// How warm a pod is that came so long ago.
#[must_use]
pub fn warmth(age: Duration) -> f64 {
    (age.as_secs_f64() / SLOW_START.as_secs_f64()).clamp(COLD, 1.0)
}

/// One of `count` pods. `draw(n)` is a random number below `n`. `None` when none has room.
pub fn choose(
    count: usize,
    view: impl Fn(usize) -> View,
    mut draw: impl FnMut(usize) -> usize,
) -> Option<usize> {
    match count {
        0 => return None,
        1 => return view(0).has_room.then_some(0),
        _ => {}
    }
    let first = draw(count);
    let second = (first + 1 + draw(count - 1)) % count;
    let (one, two) = (view(first), view(second));
    match (one.is_good(), two.is_good()) {
        (true, true) if two.cost() < one.cost() => Some(second),
        (true, _) => Some(first),
        (false, true) => Some(second),
        // Both are no choice: the best of all, and one that failed rather than none.
        (false, false) => {
            let with_room = (0..count)
                .map(|i| (i, view(i)))
                .filter(|(_, view)| view.has_room);
            let better = |(i, a): (usize, View), (j, b): (usize, View)| {
                let is_better = (b.standing, b.cost()) < (a.standing, a.cost());
                if is_better { (j, b) } else { (i, a) }
            };
            with_room.reduce(better).map(|(i, _)| i)
        }
    }
}

/// The pod whose turn it is, and how many were passed over for it: who comes next begins behind it, so that the pod after
/// one that is full gets no double share. `None` when none has room.
pub fn in_turn(count: usize, turn: usize, view: impl Fn(usize) -> View) -> Option<(usize, usize)> {
    let order = || (0..count).map(|passed| ((turn % count + passed) % count, passed));
    let with_room = || order().filter(|(i, _)| view(*i).has_room);
    order()
        .find(|(i, _)| view(*i).is_good())
        .or_else(|| with_room().min_by_key(|(i, _)| view(*i).standing))
}

/// The pod of a key: the first by `rank` that is good. `None` when none is.
pub fn sticky(
    count: usize,
    key: u64,
    view: impl Fn(usize) -> View,
    rank: impl Fn(usize) -> u64,
) -> Option<usize> {
    (0..count)
        .filter(|i| view(*i).is_good())
        .max_by_key(|i| split::mix(key ^ rank(*i)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: View = View {
        outstanding: 0,
        has_room: true,
        standing: Standing::Good,
        warmth: 1.0,
    };

    #[test]
    fn the_less_busy_of_two_is_chosen() {
        let views = [
            View {
                outstanding: 3,
                ..IDLE
            },
            View {
                outstanding: 1,
                ..IDLE
            },
        ];
        for drawn in [0, 1] {
            assert_eq!(choose(2, |i| views[i], |n| drawn % n), Some(1));
        }
    }

    #[test]
    fn a_pod_that_failed_is_passed_over_unless_there_is_no_other() {
        let out = View {
            standing: Standing::Out,
            ..IDLE
        };
        let full = View {
            has_room: false,
            ..IDLE
        };
        for drawn in [0, 1, 2] {
            assert_eq!(choose(3, |i| [out, full, IDLE][i], |n| drawn % n), Some(2));
            assert_eq!(choose(3, |i| [out, full, full][i], |n| drawn % n), Some(0));
            assert_eq!(choose(3, |_| full, |n| drawn % n), None);
        }
        assert_eq!(choose(1, |_| out, |_| 0), Some(0));
        assert_eq!(choose(0, |_| IDLE, |_| 0), None);
    }

    #[test]
    fn a_pod_that_failed_this_request_is_the_last_to_be_tried_again() {
        let of = |standing| View { standing, ..IDLE };
        let (out, failed) = (of(Standing::Out), of(Standing::FailedThis));
        for drawn in [0, 1] {
            assert_eq!(choose(2, |i| [failed, out][i], |n| drawn % n), Some(1));
            assert_eq!(choose(2, |i| [out, failed][i], |n| drawn % n), Some(0));
        }
        for turn in [0, 1] {
            assert_eq!(in_turn(2, turn, |i| [failed, out][i]).unwrap().0, 1);
            assert_eq!(in_turn(2, turn, |i| [out, failed][i]).unwrap().0, 0);
        }
    }

    #[test]
    fn a_cold_pod_gets_its_first_requests_later_than_a_warm_one() {
        assert!((warmth(Duration::ZERO) - 0.1).abs() < 1e-9);
        assert!((warmth(SLOW_START / 2) - 0.5).abs() < 1e-9);
        assert!((warmth(Duration::from_secs(99)) - 1.0).abs() < 1e-9);
        let cold = View {
            warmth: 0.1,
            ..IDLE
        };
        let busy = |outstanding| View {
            outstanding,
            ..IDLE
        };
        assert_eq!(choose(2, |i| [cold, busy(8)][i], |_| 0), Some(1));
        assert_eq!(choose(2, |i| [cold, busy(12)][i], |_| 0), Some(0));
    }

    #[test]
    fn requests_spread_evenly_over_pods_that_are_equally_fast() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut outstanding = [0_u32; 8];
        let mut got = [0_u32; 8];
        for turn in 0..80_000 {
            let view = |i: usize| View {
                outstanding: outstanding[i],
                ..IDLE
            };
            let chosen = choose(8, view, |n| random.usize(0..n)).unwrap();
            outstanding[chosen] += 1;
            got[chosen] += 1;
            if turn > 16 {
                let busy: Vec<usize> = (0..8).filter(|i| outstanding[*i] > 0).collect();
                outstanding[busy[random.usize(0..busy.len())]] -= 1;
            }
        }
        assert!(got.iter().all(|n| (9_000..11_000).contains(n)), "{got:?}");
    }

    #[test]
    fn in_turn_each_pod_gets_as_many_also_when_one_is_passed_over() {
        let out = View {
            standing: Standing::Out,
            ..IDLE
        };
        let full = View {
            has_room: false,
            ..IDLE
        };
        let got = |views: [View; 3]| {
            let mut turn = usize::MAX - 1;
            let mut got = [0; 3];
            for _ in 0..600 {
                let Some((chosen, passed)) = in_turn(3, turn, |i| views[i]) else {
                    continue;
                };
                got[chosen] += 1;
                turn = turn.wrapping_add(1 + passed);
            }
            got
        };
        assert_eq!(got([IDLE, IDLE, IDLE]).iter().sum::<i32>(), 600);
        assert!(
            got([IDLE, IDLE, IDLE])
                .iter()
                .all(|n| (199..=201).contains(n))
        );
        let two = got([IDLE, out, IDLE]);
        assert!(two[1] == 0 && (299..=301).contains(&two[0]), "{two:?}");
        assert_eq!(
            got([full, out, full]),
            [0, 600, 0],
            "one that failed rather than none"
        );
        assert_eq!(got([full, full, full]), [0, 0, 0]);
        assert_eq!(in_turn(0, 7, |_| IDLE), None);
    }

    #[test]
    fn a_pod_that_goes_moves_only_its_own_sessions() {
        let before: Vec<usize> = (0..1000)
            .map(|k| sticky(5, split::mix(k), |_| IDLE, |i| i as u64).unwrap())
            .collect();
        let gone = View {
            standing: Standing::Out,
            ..IDLE
        };
        for (k, had) in before.iter().enumerate() {
            let now = sticky(
                5,
                split::mix(k as u64),
                |i| if i == 2 { gone } else { IDLE },
                |i| i as u64,
            );
            if *had == 2 {
                assert_ne!(now, Some(2));
            } else {
                assert_eq!(now, Some(*had));
            }
        }
        let of_one = before.iter().filter(|pod| **pod == 0).count();
        assert!(
            (150..250).contains(&of_one),
            "{of_one} of 1000 on one of five"
        );
    }

    proptest! {
        #[test]
        fn who_is_chosen_has_room_and_someone_is_chosen_when_anyone_has(
            pods in prop::collection::vec((0_u32..9, any::<bool>(), 0..3_usize), 0..9), seed: u64,
        ) {
            let view = |i: usize| View {
                outstanding: pods[i].0,
                has_room: pods[i].1,
                standing: [Standing::Good, Standing::Out, Standing::FailedThis][pods[i].2],
                warmth: 1.0,
            };
            let mut random = fastrand::Rng::with_seed(seed);
            let with_room = (0..pods.len()).filter(|i| pods[*i].1);
            let best = with_room.map(|i| view(i).standing).min();
            for chosen in [
                choose(pods.len(), view, |n| random.usize(0..n)),
                in_turn(pods.len(), random.usize(..), view).map(|(i, _)| i),
            ] {
                prop_assert!(chosen.is_none_or(|i| pods[i].1));
                prop_assert_eq!(chosen.map(|i| view(i).standing), best);
            }
        }
    }
}
