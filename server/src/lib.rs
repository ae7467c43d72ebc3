//! The Ortolan server: ONNX models over HTTP, with no knowledge of Kubernetes.
//!
//! ```text
//!  options ─► serve ─► ortolan_model::obtain ─► Model::open ─► catalog: name → versions → Model
//!                │         (URI → files)        (sessions)         │
//!                │                                                 ▼ engine: N threads, N sessions
//!                └─► http::listen ─► router ─► v2 · v1 · raw ─► infer::run ──► bounded queue ──┘
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
pub mod admission;
pub mod announce;
pub mod app;
pub mod batch;
pub mod binary;
pub mod cache;
pub mod catalog;
pub mod classes;
pub mod cpu;
pub mod deadline;
pub mod declared;
pub mod describe;
pub mod dtype;
pub mod engine;
pub mod exit;
pub mod grpc;
pub mod heap;
pub mod http;
pub mod infer;
pub mod json;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod observe;
pub mod oip;
pub mod onnx;
pub mod options;
pub mod output;
pub mod parameters;
pub mod pipeline;
pub mod ports;
pub mod process;
pub mod repository;
pub mod runtime;
pub mod serve;
pub mod settings;
pub mod signals;
pub mod signature;
pub mod startup;
pub mod statistics;
pub mod tensor;
pub mod tool;
