//! What the end-to-end tests share. The tests (`tests/e2e`) speak of services, load and conditions;
//! how a cluster is reached stands here.
//!
//! ```text
//!   Test ─ a namespace of its own, PodSecurity restricted
//!    ├ Service   apply · wait for conditions · ask          → API server
//!    ├ Load      starts and stops; counts every failure     → a pod in the cluster, through the Service's address
//!    ├ Gateway   the same by host name, for `gateway::*`    → through the Gateway of e2e/gateway
//!    └ failed?   describe · events · logs of everybody      → the terminal
//!   Install ─ once a run: chart, model store, load generator
//!   Node    ─ the single node of e2e/cluster: its programs stop and start one by one
//! ```
//!
//! Inputs: the environment that `e2e/run` sets (`KUBECONFIG`, `ORTOLAN_E2E_FLAVOR`, `ORTOLAN_IMAGE_PREFIX`,
//! `ORTOLAN_IMAGE_TAG`, `ORTOLAN_E2E_NODE`, `ORTOLAN_E2E_RUN`), `kubectl` and `helm` on the `PATH`.
//!
//! Invariants: a test sees only its own namespace, unless it is [`Test::alone`]; load is sent by a
//! pod, never from outside; nothing is tried again but the question whether something has happened yet.

mod command;
mod error;
mod gateway;
pub mod grpc;
mod install;
mod load;
mod node;
mod service;
mod test;

pub use command::{example, helm, helm_values, image, kubectl, kubectl_in};
pub use error::{Failure, Result};
pub use gateway::{Gateway, Host};
pub use install::{Install, RELEASE, SYSTEM, scratch};
pub use load::{Load, Reply, now};
pub use node::Node;
pub use service::{Service, other_model, plain_spec, spec};
pub use test::Test;

/// The store of `examples/model-store.yaml`, as servers see it.
pub const STORE: &str = "http://model-store.ortolan-models.svc";

/// Fails with a sentence.
///
/// # Errors
/// Always.
pub fn fail<T>(what: impl Into<String>) -> Result<T> {
    Err(Failure::Wrong(what.into()))
}

/// Fails with the sentence unless it holds.
///
/// # Errors
/// When it does not hold.
pub fn check(holds: bool, what: impl FnOnce() -> String) -> Result {
    if holds { Ok(()) } else { fail(what()) }
}
