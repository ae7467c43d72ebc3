//! Which revision gets the next request: exact, without chance.
//!
//! Each revision with weight `w` of the sum `W` has a claim: its `j`-th request (from 0) may come once `j·W/w` requests
//! were there, and must come before `(j+1)·W/w`, rounded up. Taking the open claim with the earliest end keeps all
//! of them, since the claims fill one request a turn exactly (earliest deadline first is optimal for one machine; Liu
//! and Layland 1973). So in every prefix of `n` requests a revision has more than `n·w/W − 1` and fewer than
//! `n·w/W + 1`. After `W` turns every claim is settled and the order repeats: it is worked out once, for each change of
//! the weights, and a request costs one atomic addition.

use std::sync::atomic::{AtomicU64, Ordering};

/// The order of a service's revisions.
#[derive(Debug, Default)]
pub struct Split {
    /// One period: indices of revisions. Empty when no revision has a weight.
    order: Box<[u16]>,
    /// Where each revision's part of the keys ends, of the sum of the weights.
    ends: Box<[u32]>,
    next: AtomicU64,
}

impl Split {
    /// For these weights, by the revisions' indices.
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        let mut sum = 0;
        let ends = weights.iter().map(|weight| {
            sum += weight;
            sum
        });
        Self {
            ends: ends.collect(),
            order: order(weights).into_boxed_slice(),
            next: AtomicU64::new(0),
        }
    }

    /// The revision of the next request. `None` when no revision has a weight.
    pub fn next(&self) -> Option<usize> {
        let period = u64::try_from(self.order.len()).ok().filter(|n| *n > 0)?;
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % period;
        let index = usize::try_from(turn).ok()?;
        self.order.get(index).map(|revision| usize::from(*revision))
    }

    /// The revision of all requests with this key. The same weights give the same revision on every router, and a
    /// weight that grows takes keys only from those behind it.
    #[must_use]
    pub fn by_key(&self, key: u64) -> Option<usize> {
        let sum = u64::from(*self.ends.last()?);
        if sum == 0 {
            return None;
        }
        // The key's part of the whole range, without a division's bias.
        let point = (u128::from(key) * u128::from(sum)) >> 64;
        let is_behind = |end: &u32| u128::from(*end) <= point;
        Some(self.ends.partition_point(is_behind))
    }

    /// Whether this is the split of these weights.
    #[must_use]
    pub fn is_of(&self, weights: &[u32]) -> bool {
        let mut sum = 0;
        self.ends.len() == weights.len()
            && self.ends.iter().zip(weights).all(|(end, weight)| {
                sum += weight;
                *end == sum
            })
    }
}

fn order(weights: &[u32]) -> Vec<u16> {
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let mut had = vec![0_u64; weights.len()];
    let mut order = Vec::with_capacity(usize::try_from(sum).unwrap_or(0));
    for turn in 0..sum {
        let open = (0..weights.len()).filter(|i| {
            let weight = u64::from(weights[*i]);
            weight > 0 && had[*i] * sum < (turn + 1) * weight
        });
        let end = |i: &usize| ((had[*i] + 1) * sum).div_ceil(u64::from(weights[*i]));
        // There is always an open claim: fewer than `turn + 1` requests were given.
        let Some(chosen) = open.min_by_key(end) else {
            break;
        };
        had[chosen] += 1;
        order.push(u16::try_from(chosen).unwrap_or(u16::MAX));
    }
    order
}

/// The weights that requests are split by: those of the revisions that can answer. When none that can answer has a
/// weight, all are 0 and requests wait.
#[must_use]
pub fn effective(revisions: impl IntoIterator<Item = (u8, bool)>) -> Vec<u32> {
    let one = |(weight, can_answer)| if can_answer { u32::from(weight) } else { 0 };
    revisions.into_iter().map(one).collect()
}

/// A key's place in the whole range of 64 bits: the same on every router and in every release (FNV-1a, then the
/// mixing steps of MurmurHash3, since FNV alone leaves the high bits of short texts alike).
#[must_use]
pub fn hash(text: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash)
}

/// MurmurHash3's last steps.
#[must_use]
pub const fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(weights: &[u32], n: usize) -> Vec<usize> {
        let split = Split::new(weights);
        (0..n).map(|_| split.next().unwrap()).collect()
    }

    #[test]
    fn a_tenth_is_every_tenth_request_and_not_ten_at_once() {
        let turns = first(&[90, 10], 100);
        let of_candidate: Vec<usize> = (0..100).filter(|i| turns[*i] == 1).collect();
        assert_eq!(of_candidate.len(), 10);
        for pair in of_candidate.windows(2) {
            assert!((9..=11).contains(&(pair[1] - pair[0])), "{of_candidate:?}");
        }
    }

    #[test]
    fn without_a_weight_nobody_gets_a_request() {
        assert_eq!(Split::new(&[]).next(), None);
        assert_eq!(Split::new(&[0, 0]).next(), None);
        assert_eq!(Split::new(&[0, 0]).by_key(7), None);
        assert_eq!(first(&[0, 100], 3), [1, 1, 1]);
    }

    #[test]
    fn the_weight_of_a_revision_that_cannot_answer_moves_to_the_others() {
        let all = [(80, true), (15, true), (5, true)];
        assert_eq!(effective(all), [80, 15, 5]);
        let without = effective([(80, false), (15, true), (5, true)]);
        let turns = first(&without, 400);
        let count = |i| turns.iter().filter(|turn| **turn == i).count();
        assert_eq!((count(0), count(1), count(2)), (0, 300, 100));
    }

    #[test]
    fn a_weight_that_grows_keeps_the_keys_that_it_has() {
        let keys: Vec<u64> = (0..10_000_u32).map(|n| hash(&n.to_be_bytes())).collect();
        let had = |weights: &[u32]| {
            let split = Split::new(weights);
            keys.iter()
                .map(|key| split.by_key(*key) == Some(0))
                .collect::<Vec<_>>()
        };
        let (small, large) = (had(&[10, 90]), had(&[25, 75]));
        assert!(small.iter().zip(&large).all(|(was, is)| !was || *is));
        let share = large.iter().filter(|is| **is).count();
        assert!(
            (2_350..2_650).contains(&share),
            "{share} of 10,000 keys for 25 %"
        );
    }

    proptest! {
        /// From the brief of the router: any prefix of n requests is within 1 of n·w/100 for each revision.
        #[test]
        fn every_prefix_is_within_one_request_of_the_weights(
            weights in prop::collection::vec(0_u32..=100, 1..8),
            n in 0_usize..700,
        ) {
            let sum: u32 = weights.iter().sum();
            prop_assume!(sum > 0);
            let split = Split::new(&weights);
            let mut had = vec![0_i64; weights.len()];
            for turn in 1..=i64::try_from(n).unwrap() {
                had[split.next().unwrap()] += 1;
                for (had, weight) in had.iter().zip(&weights) {
                    let away = had * i64::from(sum) - turn * i64::from(*weight);
                    prop_assert!(away.abs() < i64::from(sum), "{turn}: {had} of {weight}/{sum}");
                }
            }
        }

        #[test]
        fn a_key_always_goes_to_a_revision_with_a_weight(
            weights in prop::collection::vec(0_u32..=100, 1..8),
            key: u64,
        ) {
            let split = Split::new(&weights);
            prop_assert!(split.is_of(&weights));
            match split.by_key(key) {
                Some(revision) => prop_assert!(weights[revision] > 0),
                None => prop_assert_eq!(weights.iter().sum::<u32>(), 0),
            }
        }
    }
}
