//! How long to wait before an object is tried again after a failure.
//!
//! Transient errors: 1 s, doubling to 5 min. The jitter (up to a fifth, by a number that the caller
//! draws) keeps a thousand objects that failed together from coming back together.

use std::time::Duration;

/// The first wait.
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest wait, before jitter.
pub const LONGEST: Duration = Duration::from_secs(300);

/// The wait before try number `failures + 1`; `jitter` is in 0..=1.
#[must_use]
pub fn delay(failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32 << failures.saturating_sub(1).min(16));
    doubled
        .min(LONGEST)
        .mul_f64(1.0 + 0.2 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_from_a_second_to_five_minutes() {
        let waits: Vec<u64> = (1..=12).map(|n| delay(n, 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(delay(0, 0.0), FIRST);
        assert_eq!(delay(u32::MAX, 0.0), LONGEST);
    }

    #[test]
    fn jitter_adds_at_most_a_fifth() {
        assert_eq!(delay(10, 1.0), Duration::from_secs(360));
        assert_eq!(delay(10, 7.0), Duration::from_secs(360));
    }
}
