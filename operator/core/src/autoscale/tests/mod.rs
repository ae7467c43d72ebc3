//! What [`super::decide`] decides.

mod decisions;
mod properties;
mod rest;
mod vectors;
mod world;
