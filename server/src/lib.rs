//! The Ortolan server: one ONNX model over HTTP, with no knowledge of Kubernetes.
//!
//! ```text
//!  options ─► serve ─► ortolan_model::obtain ─► runtime ─► engine: N threads, N sessions
//!                │         (URI → files)       (sessions)      ▲ bounded queue
//!                └─► http::listen ─► router ─► v2 · v1 · raw ──┘
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod announce;
pub mod app;
pub mod cpu;
pub mod dtype;
pub mod engine;
pub mod exit;
pub mod http;
pub mod json;
pub mod logging;
pub mod metrics;
pub mod onnx;
pub mod options;
pub mod pipeline;
pub mod runtime;
pub mod serve;
pub mod signals;
pub mod signature;
pub mod startup;
pub mod tensor;
