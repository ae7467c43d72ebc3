//! From a model's URI to verified files on disk.
pub mod failure;
