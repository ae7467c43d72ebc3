//! Tests against a real API server, one program so that all of them run beside each other: `tests/run`.

mod cel;
mod cli;
mod collisions;
mod crash_points;
mod drift;
mod failures;
mod gateways;
mod gitops_live;
mod idle;
mod lease;
mod lifecycle;
mod requests;
mod rollouts;
mod router;
mod scaling;
mod stats_reader;
mod upgrade;
