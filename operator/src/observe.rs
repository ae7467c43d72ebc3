//! Reads everything about one InferenceService, once. The caches answer everything but two questions:
//! whether a Service that is not ours has the name that we need (asked once, before the first write),
//! and what a pod fetched (asked once of each pod that started before the digest was recorded).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Service;
use kube::{Api, Resource};
use ortolan_core::{
    failure,
    observed::{Foreign, Observed},
    revision::{self, RevisionName},
};
use ortolan_crds::{InferenceService, names};

use crate::{context::Context, index::Key, probe};

/// Why nothing could be observed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer a read.
    #[error("cannot look for a Service named {name}: {source}")]
    Service {
        /// The name looked for.
        name: String,
        /// What the client says.
        source: kube::Error,
    },
}

impl Error {
    /// For the metric and the log.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Service { .. } => "ReadFailed",
        }
    }
}

/// What was observed, and whether some pod still has to be asked.
#[derive(Debug)]
pub struct Seen {
    /// Everything that was read.
    pub observed: Observed,
    /// A pod could not be asked what it fetched.
    pub unasked: bool,
}

/// Reads everything about one InferenceService.
///
/// # Errors
/// When the API server does not answer.
pub async fn observe(
    context: &Context,
    key: &Key,
    service: Arc<InferenceService>,
) -> Result<Seen, Error> {
    let i = &context.indices;
    let mut observed = Observed {
        service: (*service).clone(),
        revisions: owned(i.revisions.of(key)),
        deployments: owned(i.deployments.of(key)),
        services: owned(i.services.of(key)),
        budgets: owned(i.budgets.of(key)),
        config_maps: owned(i.config_maps.of(key)),
        pods: owned(i.pods.of(key)),
        foreign: None,
        reports: BTreeMap::new(),
        outage: context.outage.last(),
    };
    if observed.services.is_empty() && service.meta().deletion_timestamp.is_none() {
        observed.foreign = foreign_service(context, key, &mut observed).await?;
    }
    let unasked = ask_pods(context, key, &mut observed).await;
    Ok(Seen { observed, unasked })
}

fn owned<K: Clone>(objects: Vec<Arc<K>>) -> Vec<K> {
    objects.into_iter().map(Arc::unwrap_or_clone).collect()
}

/// No Service of ours is known: there may be none, our cache may be behind, or the name is taken.
async fn foreign_service(
    context: &Context,
    key: &Key,
    observed: &mut Observed,
) -> Result<Option<Foreign>, Error> {
    let api: Api<Service> = Api::namespaced(context.client.clone(), &key.namespace);
    let found = api
        .get_opt(&key.name)
        .await
        .map_err(|source| Error::Service {
            name: key.name.clone(),
            source,
        })?;
    Ok(match found {
        Some(service) if observed.owns(&service.metadata) => {
            observed.services.push(service);
            None
        }
        Some(_) => Some(Foreign {
            kind: "Service",
            name: key.name.clone(),
        }),
        None => None,
    })
}

/// Asks ready pods that started before their revision's digest was recorded.
async fn ask_pods(context: &Context, key: &Key, observed: &mut Observed) -> bool {
    let mut kept = HashMap::new();
    let mut unasked = false;
    let revisions: Vec<RevisionName> = observed
        .revisions
        .iter()
        .filter(|object| !revision::digest_is_given(object))
        .filter_map(|object| object.metadata.name.clone())
        .map(RevisionName::new)
        .collect();
    for revision in revisions {
        for (uid, address) in to_ask(observed, &revision) {
            let report = match context.report(key, &uid) {
                Some(report) => Ok(report),
                None => probe::ask(&address).await,
            };
            match report {
                Ok(report) => {
                    observed.reports.insert(uid.clone(), report.clone());
                    kept.insert(uid, report);
                }
                Err(error) => {
                    tracing::debug!(%error, service = key.name, "a pod's digest is not known yet");
                    unasked = true;
                }
            }
        }
    }
    context.keep_reports(key, kept);
    unasked
}

/// UID and address of the pods to ask.
fn to_ask(observed: &Observed, revision: &RevisionName) -> Vec<(String, String)> {
    let recorded = observed
        .config_maps
        .iter()
        .find(|c| c.metadata.name.as_deref() == Some(revision.as_str()))
        .filter(|c| {
            c.data
                .as_ref()
                .is_some_and(|data| data.contains_key(names::DIGEST_KEY))
        })
        .and_then(|c| c.metadata.creation_timestamp.clone());
    observed
        .pods_of(revision)
        .into_iter()
        .filter(|pod| failure::is_ready(pod))
        .filter(|pod| match (&recorded, &pod.metadata.creation_timestamp) {
            (Some(recorded), Some(created)) => created <= recorded,
            _ => true,
        })
        .filter_map(|pod| {
            Some((
                pod.metadata.uid.clone()?,
                pod.status.as_ref()?.pod_ip.clone()?,
            ))
        })
        .collect()
}
