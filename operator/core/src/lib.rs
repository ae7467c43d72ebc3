//! The pure part of the operator: what is read goes in, what is to be written comes out.
//!
//! ```text
//!  Observed ─▶ validate ─▶ Template ─▶ revision ─▶ health ─▶ step ─▶ build ─▶ Plan { writes, status, notices }
//!              (spec, Defaults)        (ControllerRevisions) (pods)  (rollout)  (objects, drift)
//! ```
//!
//! No I/O, no clock, no randomness, no async: `now` is a parameter, and the same inputs give the same
//! plan. `cargo check -p ortolan-core` alone proves that no client is in reach.

pub mod autoscale;
pub mod backoff;
pub mod build;
pub mod drift;
pub mod failure;
pub mod gateway;
pub mod health;
pub mod lease;
pub mod notice;
pub mod observed;
pub mod plan;
pub mod quantity;
pub mod revision;
pub mod rollout;
pub mod routing;
pub mod status;
pub mod step;
pub mod validate;

pub use jiff::Timestamp;
