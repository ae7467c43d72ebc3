//! How high the rate of six seconds rose within about the last hour, in bounded memory.

use std::{collections::BTreeMap, ops::AddAssign, time::Duration};

use jiff::Timestamp;
use ortolan_stats::latency;
use serde::{Deserialize, Serialize};

use super::{rolling::Rolling, units::PerSecond};

/// Half of what is looked at.
const BLOCK: Duration = Duration::from_secs(1_800);
/// The share of the time in which the rate was not higher.
const SHARE: f64 = 0.99;
/// Seconds from which something follows.
const LEAST: f64 = 600.0;
/// The buckets of [`latency`] begin at 64: rates are counted in thousandths.
const SCALE: f64 = 1e3;

/// Milliseconds, by the bucket of the rate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rates(BTreeMap<u16, u64>);

impl AddAssign<&Self> for Rates {
    fn add_assign(&mut self, other: &Self) {
        for (bucket, seconds) in &other.0 {
            let sum = self.0.entry(*bucket).or_default();
            *sum = sum.saturating_add(*seconds);
        }
    }
}

/// The rates of the last half to whole hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bursts(Rolling<Rates>);

impl Bursts {
    /// Nothing seen.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(Rolling::new(now))
    }

    /// Adds a rate that stood for so many seconds.
    pub fn push(&mut self, rate: f64, seconds: f64, now: Timestamp) {
        let bucket = latency::bucket((rate * SCALE) as u64).min(latency::BOUNDS - 1);
        let bucket = u16::try_from(bucket).unwrap_or(u16::MAX);
        let rates = Rates([(bucket, (seconds * 1e3) as u64)].into());
        self.0.add(&rates, BLOCK, now);
    }

    /// The rate that 99 % of the time was not exceeded, an eighth above it at most, up to 67 000 a second; `None`
    /// before ten minutes were seen.
    #[must_use]
    pub fn rate(&self) -> Option<PerSecond> {
        let rates = self.0.sum().0;
        let seen = rates
            .values()
            .fold(0, |sum: u64, ms| sum.saturating_add(*ms));
        let bucket = ortolan_stats::quantile(&rates, SHARE)?;
        let rate = latency::bound(usize::from(bucket)) as f64 / SCALE;
        PerSecond::new(rate).filter(|_| seen as f64 >= LEAST * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_of_more_than_a_hundredth_of_the_time_are_seen() {
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).expect("a time");
        // every so many looks of 2 s a burst; the rate
        for (every, low, high) in [(50, 400.0, 450.0), (200, 40.0, 45.0)] {
            let mut bursts = Bursts::new(at(0));
            for look in 0..600 {
                let rate = if look % every == 0 { 400.0 } else { 40.0 };
                bursts.push(rate, 2.0, at(2 * look));
            }
            let rate = bursts.rate().expect("seen long enough").get();
            assert!((low..=high).contains(&rate), "every {every}: {rate}");
        }
    }

    #[test]
    fn nothing_follows_from_little() {
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).expect("a time");
        let mut bursts = Bursts::new(at(0));
        assert_eq!(bursts.rate(), None);
        bursts.push(f64::NAN, f64::NAN, at(2));
        bursts.push(1e300, 599.0, at(4));
        assert_eq!(bursts.rate(), None);
        bursts.push(1e300, 1.0, at(6));
        assert!(bursts.rate().is_some());
    }
}
