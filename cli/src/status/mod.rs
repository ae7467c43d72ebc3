//! `ortolan status`: one service, once or live.

mod live;
pub mod view;

use std::io::IsTerminal as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Found},
    error::Error,
    exit::Exit,
    facts::PodFacts,
    options::Status,
    output,
};

/// Shows.
///
/// # Errors
/// When there is no such service, or the API server says no.
pub async fn run(cluster: &Cluster, options: &Status) -> Result<Exit, Error> {
    let seen = look(cluster, &options.name).await?;
    match options.output {
        Some(format) => output::print_as(&seen.whole(), format)?,
        None if options.watch && std::io::stdout().is_terminal() => {
            let last = live::watch(cluster, &options.name, seen).await?;
            output::print(&last)?;
        }
        None => output::print(&seen.text(Timestamp::now()))?,
    }
    Ok(Exit::Done)
}

/// What is shown.
pub struct Seen {
    found: Found,
    pods: Vec<PodFacts>,
}

impl Seen {
    fn text(&self, now: Timestamp) -> String {
        view::view(&self.found.service, &self.pods, now)
    }

    /// For programs: the status as it is, and the pods.
    fn whole(&self) -> Value {
        let raw = &self.found.raw;
        json!({
            "name": raw["metadata"]["name"],
            "namespace": raw["metadata"]["namespace"],
            "generation": raw["metadata"]["generation"],
            "status": raw["status"],
            "pods": self.pods,
        })
    }
}

async fn look(cluster: &Cluster, name: &str) -> Result<Seen, Error> {
    let found = cluster.service(name).await?;
    let pods = cluster.pods(name).await?;
    let pods = pods.iter().map(PodFacts::of).collect();
    Ok(Seen { found, pods })
}
