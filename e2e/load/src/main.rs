//! The program: `ortolan-e2e-load [--listen ADDR]`.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;

/// Sends load to a Service from inside the cluster and counts every failure; told what to do over HTTP.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The address to listen on.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, ortolan_e2e_load::router())
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await?;
    Ok(())
}
