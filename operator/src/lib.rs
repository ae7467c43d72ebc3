//! The operator's shell around [`ortolan_core`]: it reads, writes and tells; it decides nothing.
//!
//! ```text
//!  watch ─▶ index (synchronous, by service) ─▶ observe ─▶ ortolan_core::plan ─▶ apply ─▶ status ─▶ events
//!    │                    ▲                                                        │
//!    └─ triggers          └──────────── what a write answered is known at once ────┘
//!
//!  Gateway API, where there is one ─▶ the same index: routes, and what their Gateways say
//!  routers (their streams of counts) ─▶ what came of a service's requests, by revision
//! ```
//!
//! Every replica watches; only the one that holds the Lease writes ([`gate::Gate`]).

pub mod apply;
pub mod asker;
pub mod context;
pub mod events;
pub mod gate;
pub mod gateways;
pub mod golden;
pub mod grants;
pub mod index;
pub mod lease;
pub mod metrics;
pub mod observe;
pub mod options;
pub mod outage;
pub mod probe;
pub mod reconcile;
pub mod routers;
pub mod run;
pub mod trim;
pub mod watch;
pub mod web;
