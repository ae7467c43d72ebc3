//! The program: `ortolan-model-store [--listen ADDR] FOLDER`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;
use clap::Parser;

/// Serves a folder of models over HTTP, with the faults that a store can have at paths of their own.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The folder to serve.
    folder: PathBuf,
    /// The address to listen on.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    anyhow::ensure!(
        options.folder.is_dir(),
        "{} is not a folder: give the folder that holds the models",
        options.folder.display()
    );
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    println!(
        "serving {} on http://{}",
        options.folder.display(),
        listener.local_addr()?
    );
    axum::serve(listener, ortolan_model_store::router(options.folder))
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await?;
    Ok(())
}
