//! `ortolan get`: services as a table, or as they are.

use jiff::Timestamp;
use kube::ResourceExt as _;
use ortolan_crds::InferenceService;
use serde_json::json;

use crate::{
    cluster::{Cluster, Found},
    error::Error,
    exit::Exit,
    facts,
    options::{Format, Get, Listing},
    output,
    table::Table,
    time,
};

/// Lists.
///
/// # Errors
/// When there is no such service, or the API server says no.
pub async fn run(cluster: &Cluster, options: &Get) -> Result<Exit, Error> {
    let found = match options.names.as_slice() {
        [] => cluster.services(options.all_namespaces).await?,
        names => {
            let mut found = Vec::new();
            for name in names {
                found.push(cluster.service(name).await?);
            }
            found
        }
    };
    match options.output {
        Some(Listing::Json) => output::print_as(&whole(&options.names, &found), Format::Json)?,
        Some(Listing::Yaml) => output::print_as(&whole(&options.names, &found), Format::Yaml)?,
        None | Some(Listing::Wide) if found.is_empty() => {
            eprintln!("{}", nothing(options, cluster))
        }
        listing => {
            let services: Vec<&InferenceService> =
                found.iter().map(|found| &found.service).collect();
            let columns = Columns {
                namespace: options.all_namespaces,
                wide: listing.is_some(),
            };
            output::print(&table(&services, columns, Timestamp::now()).render())?;
        }
    }
    Ok(Exit::Done)
}

/// One object where one was asked for, else a list, as kubectl prints them.
fn whole(names: &[String], found: &[Found]) -> serde_json::Value {
    match (names, found) {
        ([_], [one]) => one.raw.clone(),
        _ => {
            let items: Vec<_> = found.iter().map(|found| &found.raw).collect();
            json!({"apiVersion": "v1", "kind": "List", "items": items})
        }
    }
}

fn nothing(options: &Get, cluster: &Cluster) -> String {
    match options.all_namespaces {
        true => "there are no InferenceServices; docs/quick-start.md makes one".into(),
        false => format!(
            "there are no InferenceServices in namespace {}; -A lists those of all namespaces",
            cluster.namespace
        ),
    }
}

/// Which columns beside those that always are there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns {
    /// The namespace, first.
    pub namespace: bool,
    /// Model and image, last.
    pub wide: bool,
}

/// The table.
pub fn table(services: &[&InferenceService], columns: Columns, now: Timestamp) -> Table {
    let mut head = vec![
        "NAME", "READY", "REASON", "REVISION", "TRAFFIC", "ROLLOUT", "REPLICAS", "URL", "AGE",
    ];
    if columns.namespace {
        head.insert(0, "NAMESPACE");
    }
    if columns.wide {
        head.extend(["MODEL", "IMAGE"]);
    }
    let mut table = Table::new(&head);
    for service in services {
        table.add(row(service, columns, now));
    }
    table
}

fn row(service: &InferenceService, columns: Columns, now: Timestamp) -> Vec<String> {
    let status = service.status.clone().unwrap_or_default();
    let ready = facts::condition(service, "Ready");
    let serving = facts::traffic(service)
        .first()
        .map(|share| share.revision.clone());
    let pods =
        |of: fn(&ortolan_crds::RevisionStatus) -> i32| status.revisions.iter().map(of).sum::<i32>();
    let replicas = match status.revisions.is_empty() {
        true => String::new(),
        false => format!("{}/{}", pods(|r| r.ready_replicas), pods(|r| r.replicas)),
    };
    let created = service.metadata.creation_timestamp.as_ref();
    let mut cells = vec![
        service.name_any(),
        ready.map_or_else(|| "Unknown".into(), |condition| condition.status.clone()),
        ready.map_or_else(String::new, |condition| condition.reason.clone()),
        serving.clone().unwrap_or_default(),
        traffic(service),
        facts::rollout(service)
            .map(facts::phase)
            .unwrap_or_default(),
        replicas,
        status.url.clone().unwrap_or_default(),
        created.map_or_else(String::new, |created| time::age(created.0, now)),
    ];
    if columns.namespace {
        cells.insert(0, service.namespace().unwrap_or_default());
    }
    if columns.wide {
        let image = status
            .revisions
            .iter()
            .find(|revision| Some(&revision.name) == serving.as_ref());
        cells.push(service.spec.model.uri.clone());
        cells.push(
            image
                .and_then(|revision| revision.image.clone())
                .unwrap_or_default(),
        );
    }
    cells
}

/// `m-1a2b3c4d 90% m-9f8e7d6c 10%`.
fn traffic(service: &InferenceService) -> String {
    let shares = facts::traffic(service);
    let shares: Vec<String> = shares
        .iter()
        .map(|share| format!("{} {}%", share.revision, share.weight))
        .collect();
    shares.join(" ")
}
