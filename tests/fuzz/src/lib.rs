//! Any bytes at the server's entry points, and what must hold of the answer.
//!
//! ```text
//!  fuzz/ (libFuzzer, guided by coverage) ──┐
//!                                          ├──► TARGETS: bytes ─► entry point ─► what must hold
//!  seeds ─► mutate (a seeded generator) ───┤
//!  regressions/ (what was found once) ─────┘
//! ```
//!
//! Input: bytes. Output: whether they were taken or refused; a panic where something did not hold: a panic of the
//! server itself, an answer that blames the server for what the client sent, an answer that is not what its
//! protocol says, or none within [`world::PATIENCE`]. Requests go through the server's own dispatch, with real
//! models behind it, in this process; only sockets are left out, and `server/tests/wire.rs` has those.

#![allow(
    clippy::expect_used,
    reason = "a target that fails panics: that is its result"
)]

pub mod elements;
pub mod files;
pub mod grpc;
pub mod mutate;
pub mod rest;
pub mod seeds;
pub mod world;

/// An entry point.
#[derive(Clone, Copy)]
pub struct Target {
    /// As `fuzz/fuzz_targets` and `regressions/` call it.
    pub name: &'static str,
    /// Gives the bytes to it; whether they were taken. Panics where something does not hold.
    pub run: fn(&[u8]) -> bool,
    /// Bytes to begin with, good ones most of them.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 12] = [
    target("rest", rest::any, seeds::rest),
    target("elements", elements::any, seeds::elements),
    target("v2", rest::v2, seeds::v2),
    target("tensors", rest::tensors, seeds::tensors),
    target("packed", rest::packed, seeds::packed),
    target("predict", rest::predict, seeds::predict),
    target("grpc", grpc::call, seeds::grpc),
    target("image", files::image, seeds::image),
    target("archive", files::archive, seeds::archive),
    target("onnx", files::onnx, seeds::onnx),
    target("pbtxt", files::pbtxt, seeds::pbtxt),
    target("yaml", files::yaml, seeds::yaml),
];

const fn target(name: &'static str, run: fn(&[u8]) -> bool, seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

/// The target of that name.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn named(name: &str) -> Target {
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.expect("a target of that name")
}
