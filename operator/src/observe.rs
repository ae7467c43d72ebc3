//! Reads everything about one InferenceService, once. The caches answer everything but two questions:
//! whether a Service that is not ours has the name that we need (asked once, before the first write), and what a
//! pod serves (asked in the background, of one pod of a new revision and of each that started before the digest was recorded).

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, Resource};
use ortolan_core::{
    failure,
    observed::{Foreign, Observed},
    revision::{self, RevisionName},
    rollout::observed::Golden,
};
use ortolan_crds::{InferenceService, names};

use crate::{asker::Question, context::Context, index::Key};

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

/// What was observed, and when to come back for pods that did not answer.
#[derive(Debug)]
pub struct Seen {
    /// Everything that was read.
    pub observed: Observed,
    /// Some pod did not say what it serves: ask again after this time.
    pub ask_again: Option<Duration>,
}

/// Reads everything about one InferenceService.
///
/// # Errors
/// When the API server does not answer.
pub async fn observe(
    context: &Context,
    key: &Key,
    service: InferenceService,
) -> Result<Seen, Error> {
    let i = &context.indices;
    let mut observed = Observed {
        service,
        revisions: i.revisions.of(key),
        deployments: i.deployments.of(key),
        services: i.services.of(key),
        budgets: i.budgets.of(key),
        config_maps: i.config_maps.of(key),
        pods: i.pods.of(key),
        foreign: None,
        reports: BTreeMap::new(),
        outage: context.outage.last(),
        routers: context.routers.stats(key),
        golden: Golden::None,
    };
    let is_known = |service: &Service| service.metadata.name.as_deref() == Some(&key.name);
    let is_asked_for = observed.service.meta().deletion_timestamp.is_none();
    if is_asked_for && !observed.services.iter().any(is_known) {
        observed.foreign = foreign_service(context, key, &mut observed).await?;
    }
    let ask_again = ask_pods(context, key, &mut observed);
    Ok(Seen {
        observed,
        ask_again,
    })
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

/// Asks ready pods of two kinds: those that started before their revision's digest was recorded, and one of each
/// revision that the status does not describe yet.
fn ask_pods(context: &Context, key: &Key, observed: &mut Observed) -> Option<Duration> {
    let revisions: Vec<(RevisionName, bool)> = observed
        .revisions
        .iter()
        .filter_map(|object| {
            let name = RevisionName::new(object.metadata.name.clone()?);
            Some((name, revision::digest_is_given(object)))
        })
        .collect();
    let mut questions: Vec<Question> = Vec::new();
    for (revision, digest_is_given) in revisions {
        if !digest_is_given {
            questions.extend(unrecorded(observed, &revision));
        } else if !is_described(observed, &revision) {
            questions.extend(ready_pods(observed, &revision).find_map(question));
        }
    }
    let (reports, again) = context.asker.ask(key, &questions);
    observed.reports = reports.into_iter().collect();
    again
}

/// Whether the status says what the revision's model takes and where it runs.
fn is_described(observed: &Observed, revision: &RevisionName) -> bool {
    let status = observed.service.status.as_ref();
    status.is_some_and(|status| {
        let mut described = status.revisions.iter().filter(|r| r.provider.is_some());
        described.any(|r| r.name == revision.as_str())
    })
}

/// Ready pods that started before the revision's digest was recorded, and so were held to none.
fn unrecorded(observed: &Observed, revision: &RevisionName) -> Vec<Question> {
    let recorded = observed
        .config_maps
        .iter()
        .find(|c| c.metadata.name.as_deref() == Some(revision.as_str()))
        .filter(|c| {
            c.data
                .as_ref()
                .is_some_and(|data| data.contains_key(names::DIGEST_KEY))
        })
        .and_then(|c| c.metadata.creation_timestamp.as_ref());
    ready_pods(observed, revision)
        .filter(|pod| match (recorded, &pod.metadata.creation_timestamp) {
            (Some(recorded), Some(created)) => created <= recorded,
            _ => true,
        })
        .filter_map(question)
        .collect()
}

fn ready_pods<'a>(
    observed: &'a Observed,
    revision: &RevisionName,
) -> impl Iterator<Item = &'a Pod> {
    let pods = observed.pods_of(revision).into_iter();
    pods.filter(|pod| failure::is_ready(pod))
}

fn question(pod: &Pod) -> Option<Question> {
    Some(Question {
        uid: pod.metadata.uid.clone()?,
        address: pod.status.as_ref()?.pod_ip.clone()?,
    })
}
