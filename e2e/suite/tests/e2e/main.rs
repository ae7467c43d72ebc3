//! The end-to-end tests, on a real cluster. `e2e/run` gives them one.
//!
//! One program, so that everything that a run needs once is made once, and so that a test which
//! disturbs the whole cluster can wait for the others.

mod bad;
mod bare;
mod batching;
mod canary;
mod cli;
mod disturbance;
mod drain;
mod examples;
mod first;
mod gateway;
mod gpu;
mod grpc;
mod installs;
mod leftovers;
mod outage;
mod repository;
mod rollout;
mod router;
mod scaling;
mod sources;
mod storage;
mod texts;
mod traffic;
