//! How many replicas a revision needs, from the latency of its requests.
//!
//! ```text
//!  Sample ─▶ measure ─▶ capacity ─▶ need ─▶ [rest: seal, sleep, wake] ─▶ limits ─▶ Decision
//!  (counters) (windows)  (of one replica,     (of each target; the largest wins)
//!                         corrected)
//! ```
//!
//! [`decide`] is called every 2 s for each revision. Latency is flat below the knee, where more replicas cannot lower
//! it, and explodes above it; a ratio of the latency to its objective therefore either does nothing or runs away. So
//! the demand (arrivals) is divided by what one replica carries at the objective ([`capacity`]), learned from service
//! times and corrected by what is seen ([`correction`]). An objective below the service time itself is a condition,
//! not a number of replicas.
//!
//! In: [`Config`] (the spec), the [`State`] of before, a [`Sample`] (monotonic counters of routers and pods, counts of
//! replicas) and the time. Out: the next state and a [`Decision`] with its reason, a sentence.
//!
//! Invariants: at least `min` and one replica and at most `max`, or none where the service sleeps; never fewer because
//! data is missing; the same inputs give the same outputs; no input makes it panic. Pure: no clock, no I/O, no randomness.

pub mod batching;
pub mod burst;
pub mod capacity;
pub mod config;
pub mod correction;
mod decide;
pub mod decision;
pub mod delta;
pub mod histogram;
pub mod hold;
mod limits;
mod measure;
mod need;
mod rest;
pub mod rolling;
pub mod sample;
pub mod slots;
pub mod state;
pub mod units;
pub mod window;

pub use self::{
    config::Config,
    decide::decide,
    decision::{Condition, Decision, Figures, Reason},
    need::By,
    sample::Sample,
    state::{Kept, State},
    units::{PerSecond, Percentile},
};

#[cfg(test)]
mod tests;
