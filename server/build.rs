//! Compiles the `.proto` files, with a compiler in Rust: no `protoc` is needed.
//!
//! Outputs in `OUT_DIR`: `inference.rs`, and `inference.bin`, the descriptors that reflection serves.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["inference.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("inference.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        // Tensors stay slices of the message: decoding one copies nothing.
        .bytes(".")
        // Says INVALID_ARGUMENT of a message that is none, where tonic's own codec says INTERNAL.
        .codec_path("crate::grpc::codec::Proto")
        .compile_fds(files)?;
    Ok(())
}
