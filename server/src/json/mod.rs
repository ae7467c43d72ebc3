//! JSON as tensors need it: numbers go straight into typed buffers and out of them, with no tree of
//! values between. The outline of a body is serde's; only the data is read and written here.

pub mod data;
pub mod write;
