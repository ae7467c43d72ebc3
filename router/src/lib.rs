//! The Ortolan router: the data plane between clients and the pods of inference services.
//!
//! ```text
//!  what came of requests: plan ─► tally ─► stats ─► the operator
//!
//!  source (file, Kubernetes) ─► table ─► directory ─► live: split · line · budget ─► pod: load · pool
//!                                            ▲                     ▲
//!  TCP ─► listen (HTTP/1.1, HTTP/2) ─► proxy ┴─ find ─► place ─────┘─► exchange ─► answer, streamed
//! ```
//!
//! What is decided stands apart from what waits: `target`, `paths`, `split`, `balance`, `outlier`, `hold` and `headers`
//! take values and give values. It writes nothing to Kubernetes.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
pub mod admin;
pub mod again;
pub mod alarm;
pub mod answer;
pub mod asks;
pub mod balance;
pub mod body;
pub mod compare;
pub mod copies;
pub mod directory;
pub mod exchange;
pub mod failure;
pub mod headers;
pub mod hold;
pub mod latency;
pub mod listen;
pub mod live;
pub mod metrics;
pub mod options;
pub mod outlier;
pub mod paths;
pub mod phase;
pub mod plan;
pub mod pod;
pub mod pool;
pub mod ports;
pub mod proxy;
pub mod rate;
pub mod refusal;
pub mod run;
pub mod source;
pub mod split;
pub mod stats;
pub mod table;
pub mod tally;
pub mod target;
