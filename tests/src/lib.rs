//! What the tests against a real API server share: no kubelet and no controller manager runs, so the
//! harness plays their parts, and nothing happens that a test did not ask for.
//!
//! ```text
//!   test ─ World (a namespace of its own) ─┬─ Operator: ortolan_operator::run::operate on a thread,
//!                                          │    through a Tap that counts its requests or freezes it
//!                                          ├─ Cluster: makes pods of Deployments and patches statuses
//!                                          ├─ pods: what pods say of themselves
//!                                          ├─ Routers: follow the traffic and count requests that nobody sent
//!                                          ├─ Gateways: say of routes what a test wants, without a data plane
//!                                          └─ Audit: what the API server was asked, and by whom
//! ```
//!
//! Every wait is a poll with one generous limit ([`world::PATIENCE`]). A test that fails prints what a
//! person would ask for: the objects of its namespace, its events, and the operator's log.

pub mod argo;
pub mod audit;
pub mod cluster;
pub mod gateways;
pub mod kstatus;
pub mod operator;
pub mod pods;
pub mod routers;
pub mod snapshot;
pub mod tap;
pub mod wire;
pub mod world;

pub use cluster::{Cluster, Fate};
pub use operator::{Operator, Process};
pub use routers::Routers;
pub use world::{World, world};
