//! Hard guards need no test: a candidate that fails half of its requests while the stable revision
//! answers is taken back at once.

use super::count::{Count, Sides};

/// So many bad requests of the candidate at least: one more than two bursts of sixteen, each with one
/// cause. With ten of twenty, a healthy candidate whose errors come sixteen in a row was taken back
/// in up to 60 % of simulated rollouts.
pub const BAD: u64 = 33;
/// This share of its requests bad.
pub const SHARE: f64 = 0.5;
/// A stable revision with more bad requests than this share is not healthy: the trouble is shared.
pub const HEALTHY: f64 = 0.1;

/// The candidate's count when the guard trips on it. `before` is the stable revision's rate from
/// before it lost its traffic, for a block in which it has none; without either nothing says that it
/// is ill.
#[must_use]
pub fn trips(block: &Sides, before: Option<f64>) -> Option<Count> {
    let candidate = block.candidate;
    let failing = candidate.bad >= BAD && candidate.bad as f64 >= SHARE * candidate.requests as f64;
    let stable = block.stable.rate().or(before).unwrap_or(0.0);
    (failing && stable <= HEALTHY).then_some(candidate)
}
