//! The messages of the server's gRPC interface, from its own `.proto` files; no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../../server/proto");
    let files = protox::compile(["inference.proto"], ["../../server/proto"])?;
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
