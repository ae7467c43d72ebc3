//! From measurements to settings. Pure.
//!
//! **The knee** is the smallest setting that gives nearly the most rows a second among those that keep the latency
//! goal: fewest CPUs first, then the smallest batch, then the lowest latency. *Nearly* is 5 %, or the spread of the
//! measurements where that is larger: what lies closer together was not told apart.

use std::{str::FromStr, time::Duration};

use super::grid::Layout;
use crate::tool::stats::Spread;

/// A setting and how it did.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Sessions and threads.
    pub layout: Layout,
    /// The most rows in a run.
    pub batch: usize,
    /// Rows a second, over the rounds.
    pub rows: Spread,
    /// The median latency of a request, median of the rounds.
    pub p50: Duration,
    /// The latency at the goal's quantile, median of the rounds.
    pub tail: Duration,
    /// Rows that ran together on average.
    pub together: f64,
}

/// `p95=50ms`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slo {
    /// 0.95
    pub quantile: f64,
    /// What it must not exceed.
    pub limit: Duration,
}

impl Slo {
    /// `p95`
    #[must_use]
    pub fn name(quantile: f64) -> String {
        format!("p{}", (quantile * 1e5).round() / 1e3)
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no goal: write a percentile and a time, as p95=50ms");
        let (name, limit) = text.split_once('=').ok_or_else(wrong)?;
        let percent: f64 = name
            .trim()
            .strip_prefix('p')
            .and_then(|number| number.parse().ok())
            .filter(|percent| (1.0..100.0).contains(percent))
            .ok_or_else(wrong)?;
        let limit = crate::options::parse_duration(limit.trim())?;
        if limit.is_zero() {
            return Err(wrong());
        }
        Ok(Self {
            quantile: percent / 100.0,
            limit,
        })
    }
}

/// What is advised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The cell with the most rows a second that keeps the goal.
    pub best: usize,
    /// The smallest one that is nearly as good.
    pub knee: usize,
    /// What "nearly" was.
    pub tolerance: f64,
    /// No setting keeps the goal: these are the ones with the lowest latency.
    pub misses_goal: bool,
}

/// The least difference that counts.
const NEARLY: f64 = 0.05;
/// A spread from which on the machine is called noisy.
const NOISY: f64 = 0.10;

/// The median over all cells of how far their rounds differ.
#[must_use]
pub fn noise(cells: &[Cell]) -> f64 {
    let spreads: Vec<f64> = cells.iter().map(|cell| cell.rows.relative()).collect();
    Spread::of(&spreads).map_or(0.0, |spread| spread.median)
}

/// Whether the rounds differed so much that the figures must be read with care.
#[must_use]
pub fn is_noisy(noise: f64) -> bool {
    noise > NOISY
}

/// The settings to use; `None` when nothing was measured.
#[must_use]
pub fn choose(cells: &[Cell], slo: Option<Slo>) -> Option<Choice> {
    let tolerance = noise(cells).clamp(NEARLY, 0.5);
    let keeps = |cell: &Cell| slo.is_none_or(|slo| cell.tail <= slo.limit);
    let indices = 0..cells.len();
    let mut fit: Vec<usize> = indices.clone().filter(|at| keeps(&cells[*at])).collect();
    let misses_goal = fit.is_empty();
    if misses_goal {
        let fastest = indices.min_by_key(|at| cells[*at].tail)?;
        fit.push(fastest);
    }
    let rows = |at: usize| cells[at].rows.median;
    let best = fit
        .iter()
        .copied()
        .max_by(|a, b| rows(*a).total_cmp(&rows(*b)))?;
    let enough = rows(best) * (1.0 - tolerance);
    let knee = fit
        .into_iter()
        .filter(|at| rows(*at) >= enough)
        .min_by_key(|at| {
            let cell = &cells[*at];
            (cell.layout.cpus(), cell.batch, cell.tail)
        })?;
    Some(Choice {
        best,
        knee,
        tolerance,
        misses_goal,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cell(sessions: usize, threads: usize, batch: usize, rows: f64, tail_ms: u64) -> Cell {
        Cell {
            layout: Layout { sessions, threads },
            batch,
            rows: Spread {
                median: rows,
                least: rows * 0.99,
                most: rows * 1.01,
            },
            p50: Duration::from_millis(tail_ms / 2),
            tail: Duration::from_millis(tail_ms),
            together: batch as f64,
        }
    }

    fn knee(cells: &[Cell], slo: Option<&str>) -> (usize, usize, usize) {
        let choice = choose(cells, slo.map(|slo| slo.parse().unwrap())).unwrap();
        let knee = &cells[choice.knee];
        (knee.layout.sessions, knee.layout.threads, knee.batch)
    }

    #[test]
    fn a_larger_batch_that_gains_nothing_is_not_taken() {
        let cells = [
            cell(2, 1, 1, 100.0, 20),
            cell(2, 1, 2, 150.0, 27),
            cell(2, 1, 4, 198.0, 40),
            cell(2, 1, 8, 202.0, 80),
            cell(2, 1, 16, 203.0, 160),
        ];
        assert_eq!(knee(&cells, None), (2, 1, 4));
    }

    #[test]
    fn the_goal_rules_settings_out() {
        let cells = [
            cell(2, 1, 1, 100.0, 20),
            cell(2, 1, 2, 150.0, 27),
            cell(2, 1, 4, 198.0, 40),
        ];
        assert_eq!(knee(&cells, Some("p95=30ms")), (2, 1, 2));
        assert_eq!(knee(&cells, Some("p95=20ms")), (2, 1, 1));
        let missed = choose(&cells, Some("p95=1ms".parse().unwrap())).unwrap();
        assert!(missed.misses_goal);
        assert_eq!(missed.knee, 0, "the one with the lowest latency");
    }

    #[test]
    fn fewer_cpus_win_when_more_do_not_help() {
        let cells = [
            cell(1, 1, 1, 98.0, 10),
            cell(2, 1, 1, 100.0, 10),
            cell(4, 1, 1, 101.0, 10),
        ];
        assert_eq!(knee(&cells, None), (1, 1, 1));
        let cells = [cell(2, 1, 1, 100.0, 20), cell(1, 2, 1, 99.0, 11)];
        assert_eq!(
            knee(&cells, None),
            (1, 2, 1),
            "as many CPUs, half the latency"
        );
    }

    #[test]
    fn what_the_noise_hides_is_no_difference() {
        let mut cells = [cell(1, 1, 1, 85.0, 10), cell(1, 1, 2, 100.0, 10)];
        assert_eq!(knee(&cells, None), (1, 1, 2));
        for cell in &mut cells {
            cell.rows.most = cell.rows.median * 1.2;
        }
        assert!(is_noisy(noise(&cells)));
        assert_eq!(knee(&cells, None), (1, 1, 1));
        assert_eq!(choose(&[], None), None);
    }

    #[test]
    fn a_goal_is_a_percentile_and_a_time() {
        let slo: Slo = "p99.9=250ms".parse().unwrap();
        assert!((slo.quantile - 0.999).abs() < 1e-9);
        assert_eq!(slo.limit, Duration::from_millis(250));
        assert_eq!(Slo::name(slo.quantile), "p99.9");
        assert_eq!(Slo::name(0.95), "p95");
        for text in [
            "p95", "95=1s", "p0=1s", "p100=1s", "p95=", "p95=0", "p95=fast",
        ] {
            assert!(text.parse::<Slo>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_knee_keeps_the_goal_whenever_one_setting_does(
            cells in proptest::collection::vec((1..5_usize, 1..5_usize, 1..33_usize, 1.0..1e5_f64, 1..500_u64), 1..20),
            limit in 1..500_u64,
        ) {
            let cells: Vec<_> = cells.into_iter().map(|(s, t, b, rows, tail)| cell(s, t, b, rows, tail)).collect();
            let slo = Slo { quantile: 0.95, limit: Duration::from_millis(limit) };
            let choice = choose(&cells, Some(slo)).unwrap();
            let possible = cells.iter().any(|cell| cell.tail <= slo.limit);
            prop_assert_eq!(choice.misses_goal, !possible);
            prop_assert_eq!(cells[choice.knee].tail <= slo.limit, possible);
            prop_assert!(cells[choice.knee].rows.median >= cells[choice.best].rows.median * (1.0 - choice.tolerance));
            prop_assert!(cells[choice.knee].layout.cpus() <= cells[choice.best].layout.cpus());
        }
    }
}
