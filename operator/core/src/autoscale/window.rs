//! The last minute, look by look: what came, what ended, what was slow, what was in flight.
//!
//! Out come means over the last 60, 15 and 6 s, and the trend.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::rollout::clock::passed;

/// What is remembered.
const LONGEST: Duration = Duration::from_secs(60);
/// Looks of each half of the minute from which a trend follows.
const LEAST_LOOKS: usize = 5;
/// Standard errors that are taken off a trend: noise is one in fifteen minutes then, and its halves agree in a third of
/// those.
const ERRORS: f64 = 1.5;
/// Looks closer together than this are one.
const APART: f64 = 1.0;

/// What happened between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Look {
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Requests that came.
    pub arrivals: f64,
    /// Requests in flight or held, at its end, times its seconds.
    pub in_flight: f64,
    /// Requests that ended.
    pub ended: u64,
    /// Those of them that were slower than the objective.
    pub slower: u64,
}

/// What a demand is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Requests a second.
    Arrivals,
    /// Requests in flight.
    InFlight,
}

impl Of {
    fn amount(self, look: &Look) -> f64 {
        match self {
            Self::Arrivals => look.arrivals,
            Self::InFlight => look.in_flight,
        }
    }
}

/// The last minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window(VecDeque<(Timestamp, Look)>);

impl Window {
    /// Adds what happened until now.
    pub fn push(&mut self, look: Look, now: Timestamp) {
        if look.seconds.is_nan() || look.seconds <= 0.0 {
            return;
        }
        match self.0.back_mut() {
            Some((at, last)) if last.seconds < APART => {
                *at = now;
                last.seconds += look.seconds;
                last.arrivals += look.arrivals;
                last.in_flight += look.in_flight;
                last.ended = last.ended.saturating_add(look.ended);
                last.slower = last.slower.saturating_add(look.slower);
            }
            _ => self.0.push_back((now, look)),
        }
        while self
            .0
            .front()
            .is_some_and(|(at, _)| passed(*at, now) >= LONGEST)
            || self.0.len() > LONGEST.as_secs() as usize
        {
            self.0.pop_front();
        }
    }

    /// The mean over the last so many seconds, or over what there is of them, which counts as six seconds at least.
    #[must_use]
    pub fn mean(&self, of: Of, seconds: f64) -> f64 {
        let (mut amount, mut covered) = (0.0, 0.0);
        for (_, look) in self.0.iter().rev() {
            let part = ((seconds - covered) / look.seconds).min(1.0);
            amount += part * of.amount(look);
            covered += part * look.seconds;
            if covered >= seconds {
                break;
            }
        }
        finite(amount / covered.max(seconds.min(6.0)))
    }

    /// By how much it grows each second; not below nothing. The trend of the minute less its error, and no more than that
    /// of either half: what grew in one half alone is a step, and over.
    #[must_use]
    pub fn growth(&self, of: Of) -> f64 {
        let mut ago = 0.0;
        let mut points = Vec::new();
        for (_, look) in self.0.iter().rev() {
            let middle = ago + 0.5 * look.seconds;
            points.push((-middle, of.amount(look) / look.seconds));
            ago += look.seconds;
        }
        let half = points.partition_point(|(at, _)| *at > -0.5 * LONGEST.as_secs_f64());
        let (late, early) = points.split_at(half);
        if late.len().min(early.len()) < LEAST_LOOKS {
            return 0.0;
        }
        let (slope, error) = trend(&points);
        let halves = trend(late).0.min(trend(early).0);
        finite((slope - ERRORS * error).min(halves)).max(0.0)
    }

    /// How many ended within the minute, and how many of them were slower than the objective.
    #[must_use]
    pub fn ended(&self) -> (u64, u64) {
        let looks = self.0.iter();
        looks.fold((0, 0), |(ended, slower): (u64, u64), (_, look)| {
            (
                ended.saturating_add(look.ended),
                slower.saturating_add(look.slower),
            )
        })
    }
}

/// A slope and its standard error.
fn trend(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    let sxx: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    let sxy: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let slope = sxy / sxx;
    let rest = points.iter().map(|p| (p.1 - y - slope * (p.0 - x)).powi(2));
    (slope, (rest.sum::<f64>() / (n - 2.0) / sxx).sqrt())
}

fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    fn of(rate: impl Fn(i64) -> f64, until: i64) -> Window {
        let mut window = Window::default();
        for second in (2..=until).step_by(2) {
            let look = Look {
                seconds: 2.0,
                arrivals: 2.0 * rate(second),
                ..Look::default()
            };
            window.push(look, at(second));
        }
        window
    }

    #[test]
    fn means_are_over_the_last_seconds() {
        let step = of(|second| if second > 90 { 100.0 } else { 10.0 }, 100);
        for (seconds, expected) in [(6.0, 100.0), (15.0, 70.0), (60.0, 25.0)] {
            let mean = step.mean(Of::Arrivals, seconds);
            assert!((mean - expected).abs() < 1e-9, "{seconds} s: {mean}");
        }
        // The first look is not taken for more than it is.
        assert!((of(|_| 30.0, 2).mean(Of::Arrivals, 60.0) - 10.0).abs() < 1e-9);
        assert_eq!(Window::default().mean(Of::Arrivals, 60.0), 0.0);
    }

    #[test]
    fn a_ramp_grows_and_what_is_steady_or_falls_does_not() {
        let ramp = of(|second| second as f64, 100).growth(Of::Arrivals);
        assert!((ramp - 1.0).abs() < 1e-9, "{ramp}");
        assert_eq!(of(|_| 50.0, 100).growth(Of::Arrivals), 0.0);
        assert_eq!(of(|s| 500.0 - s as f64, 100).growth(Of::Arrivals), 0.0);
        assert_eq!(of(|s| s as f64, 30).growth(Of::Arrivals), 0.0);
        for since in (2..60).step_by(2) {
            let step = of(|s| if s > 100 - since { 500.0 } else { 50.0 }, 100);
            let growth = step.growth(Of::Arrivals);
            assert!(growth < 1e-9, "{since} s after a step: {growth}");
        }
    }

    #[test]
    fn memory_is_bounded_and_numbers_are_finite_whatever_comes() {
        let mut window = Window::default();
        for n in 0..10_000 {
            let look = Look {
                seconds: [0.0, 1e-9, 1.0, f64::NAN, 1e9][n % 5],
                arrivals: 1e300,
                in_flight: 1e300,
                ended: u64::MAX,
                slower: u64::MAX,
            };
            window.push(look, at(n as i64 / 100));
        }
        assert!(window.0.len() <= 60);
        for seconds in [6.0, 15.0, 60.0] {
            assert!(window.mean(Of::InFlight, seconds).is_finite());
        }
        assert!(window.growth(Of::Arrivals).is_finite());
        assert_eq!(window.ended(), (u64::MAX, u64::MAX));
    }
}
