//! Quantities that are easily confused, and that cannot be wrong once made.

use std::{fmt, num::NonZeroU32};

use serde::{Deserialize, Serialize};

/// Events a second: finite and not negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct PerSecond(f64);

impl PerSecond {
    /// None.
    pub const NONE: Self = Self(0.0);

    /// A rate; `None` of what is negative or not finite.
    #[must_use]
    pub fn new(rate: f64) -> Option<Self> {
        (rate.is_finite() && rate >= 0.0).then_some(Self(rate))
    }

    /// A rate above nothing.
    #[must_use]
    pub fn positive(rate: f64) -> Option<Self> {
        Self::new(rate).filter(|rate| rate.0 > 0.0)
    }

    /// Events a second.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for PerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rps", Short(self.0))
    }
}

impl From<PerSecond> for f64 {
    fn from(rate: PerSecond) -> Self {
        rate.0
    }
}

/// Why a number is no quantity of this kind.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OutOfRange {
    /// Not a rate.
    #[error("{0} is no rate; write a number of 0 or more")]
    Rate(f64),
    /// Not a percentile.
    #[error("{0} is no percentile; write a number above 0 and below 100, such as 95")]
    Percentile(f64),
}

impl TryFrom<f64> for PerSecond {
    type Error = OutOfRange;

    fn try_from(rate: f64) -> Result<Self, OutOfRange> {
        Self::new(rate).ok_or(OutOfRange::Rate(rate))
    }
}

/// A percentile: above 0 and below 100.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Percentile(f64);

impl Percentile {
    /// A percentile; `None` outside.
    #[must_use]
    pub fn new(percent: f64) -> Option<Self> {
        (percent > 0.0 && percent < 100.0).then_some(Self(percent))
    }

    /// As a share, 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        self.0 / 100.0
    }

    /// The share of requests that may be slower than the objective.
    #[must_use]
    pub fn budget(self) -> f64 {
        (1.0 - self.share()).max(f64::EPSILON)
    }
}

impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl From<Percentile> for f64 {
    fn from(percentile: Percentile) -> Self {
        percentile.0
    }
}

impl TryFrom<f64> for Percentile {
    type Error = OutOfRange;

    fn try_from(percent: f64) -> Result<Self, OutOfRange> {
        Self::new(percent).ok_or(OutOfRange::Percentile(percent))
    }
}

/// A number for a sentence: one decimal below ten, none above.
pub(super) struct Short(pub(super) f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            whole if whole.fract() == 0.0 => write!(f, "{whole:.0}"),
            small if small < 0.95 => write!(f, "{small:.2}"),
            small if small < 9.95 => write!(f, "{small:.1}"),
            large => write!(f, "{large:.0}"),
        }
    }
}

/// The whole replicas that so many exact ones are. What is a whole number but for rounding is not rounded up; what is
/// no number is none.
pub(super) fn whole(exact: f64) -> u32 {
    (exact - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// As a float.
pub(super) fn float(count: NonZeroU32) -> f64 {
    f64::from(count.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_rate_or_percentile_cannot_be_made() {
        for wrong in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(PerSecond::new(wrong), None, "{wrong}");
        }
        for wrong in [0.0, 100.0, -5.0, f64::NAN] {
            assert_eq!(Percentile::new(wrong), None, "{wrong}");
        }
        assert!(serde_json::from_str::<Percentile>("100").is_err());
        assert!(serde_json::from_str::<PerSecond>("-1").is_err());
        assert_eq!(PerSecond::positive(0.0), None);
    }

    #[test]
    fn numbers_are_as_short_as_they_may_be() {
        for (number, text) in [
            (312.4, "312"),
            (52.0, "52"),
            (8.0, "8"),
            (5.62, "5.6"),
            (0.74, "0.74"),
            (9.97, "10"),
        ] {
            assert_eq!(Short(number).to_string(), text);
        }
    }

    #[test]
    fn replicas_are_rounded_up_but_for_rounding_errors() {
        for (exact, expected) in [
            (0.0, 0),
            (0.1, 1),
            (3.0, 3),
            (3.000_000_000_1, 3),
            (3.1, 4),
            (-1.0, 0),
            (f64::NAN, 0),
            (f64::INFINITY, u32::MAX),
        ] {
            assert_eq!(whole(exact), expected, "{exact}");
        }
    }
}
