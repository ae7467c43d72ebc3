//! The buckets of a histogram of times: they follow from a time's bits, without a search.
//!
//! Eight steps for each power of two, from 64 µs to 67 s: a bound is at most an eighth above the one before it.

/// Times up to 2⁶ µs fall into the first bucket.
const FIRST: u32 = 6;
/// Times over 2²⁶ µs fall into the last.
const LAST: u32 = 26;
const STEPS: usize = 8;
/// How many buckets have a bound; the one after them takes every longer time.
pub const BOUNDS: usize = (LAST - FIRST) as usize * STEPS + 1;

/// The bucket of a time in microseconds.
#[must_use]
pub fn bucket(micros: u64) -> usize {
    if micros <= 1 << FIRST {
        return 0;
    }
    let below = micros - 1;
    let power = below.ilog2();
    if power >= LAST {
        return BOUNDS;
    }
    let step = (below >> (power - 3)) & 7;
    (power - FIRST) as usize * STEPS + step as usize + 1
}

/// The largest time of a bucket, in microseconds; `bucket` is below [`BOUNDS`].
#[must_use]
pub fn bound(bucket: usize) -> u64 {
    match bucket.checked_sub(1) {
        None => 1 << FIRST,
        Some(n) => (STEPS as u64 + (n % STEPS) as u64 + 1) << (FIRST as usize + n / STEPS - 3),
    }
}

/// The bucket whose bound is nearest to a time in microseconds; of two as near ones the lower.
#[must_use]
pub fn nearest(micros: u64) -> usize {
    let above = bucket(micros).min(BOUNDS - 1);
    match above.checked_sub(1) {
        Some(below) if micros.saturating_sub(bound(below)) <= bound(above).abs_diff(micros) => {
            below
        }
        _ => above,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_rise_by_at_most_an_eighth_from_64_microseconds_to_67_seconds() {
        assert_eq!((bound(0), bound(BOUNDS - 1)), (64, 1 << 26));
        for i in 1..BOUNDS {
            let (below, above) = (bound(i - 1), bound(i));
            assert!(
                above > below && (above - below) * 8 <= below,
                "{below} {above}"
            );
        }
        assert_eq!(bucket(u64::MAX), BOUNDS);
    }

    #[test]
    fn the_nearest_bound_is_less_than_a_sixteenth_away() {
        for (micros, expected) in [
            (0, 64),
            (64, 64),
            (67, 64),
            (69, 72),
            (100_000, 98_304),
            (250_000, 245_760),
            (1_000_000, 983_040),
            (60_000_000, 58_720_256),
            (u64::MAX, 1 << 26),
        ] {
            assert_eq!(bound(nearest(micros)), expected, "{micros}");
        }
        for micros in (64..1 << 26).step_by(7_919) {
            let found = bound(nearest(micros));
            assert!(found.abs_diff(micros) * 16 <= micros, "{micros}: {found}");
        }
    }

    proptest! {
        #[test]
        fn a_time_falls_into_the_first_bucket_that_is_not_below_it(micros in 0_u64..1 << 26) {
            let bucket = bucket(micros);
            prop_assert!(bound(bucket) >= micros);
            prop_assert!(bucket == 0 || bound(bucket - 1) < micros);
        }
    }
}
