//! Rollouts with evidence: how traffic moves to a new revision, and when it is taken back.
//!
//! ```text
//! Stable ─▶ Preparing ─▶ [Shadowing] ─▶ Step i { PreScale → Shift → Soak → Analyse } ─▶ … ─▶ [AwaitingApproval]
//!    ─▶ Promoting { PreScale → Shift → Settle } ─▶ Stable
//! fails ─▶ Aborting { ScaleStable → ShiftBack → Drain } ─▶ Failed
//! ```
//!
//! [`step`] decides, from a [`Policy`], the [`State`] of before, what was [`Observed`] and the time;
//! [`evidence`] is what it knows of the candidate. Pure: no clock, no I/O, no randomness.
//!
//! It decides where there are routers; without them a Service has all of its requests answered by one revision, and
//! [`crate::step`] decides.

mod back;
pub mod capacity;
pub mod clock;
pub mod command;
pub mod effects;
pub mod evidence;
mod forward;
pub mod golden;
pub mod observed;
pub mod policy;
pub mod readings;
mod route;
pub mod routers;
pub mod signature;
pub mod spec;
pub mod state;
mod step;
mod tell;
pub mod times;

pub use self::{
    effects::Effects,
    observed::Observed,
    policy::{Policy, Weight},
    state::{Phase, State},
    step::step,
};

#[cfg(test)]
mod tests;
