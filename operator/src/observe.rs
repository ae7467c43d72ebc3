//! Reads everything about one InferenceService, once. The caches answer everything but two questions:
//! whether a Service that is not ours has the name that we need (asked once, before the first write), and what a
//! pod serves (asked in the background, of one pod of a new revision and of each that started before the digest was recorded).

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, Resource};
use ortolan_core::{
    failure,
    observed::{Foreign, Observed},
    revision::{self, Revision, RevisionName},
    rollout::{golden::Verdict, observed::Golden},
};
use ortolan_crds::{InferenceService, RolloutPhase, names};

use crate::{
    asker::Question,
    context::Context,
    golden::{self, Outcome},
    index::Key,
};

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
    let routing = service.spec.routing.as_ref();
    let from_outside = routing.is_some_and(|routing| routing.gateway.is_some());
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
        golden: None,
        routes: context.gateways.routes(key, i, from_outside),
    };
    let is_known = |service: &Service| service.metadata.name.as_deref() == Some(&key.name);
    let is_asked_for = observed.service.meta().deletion_timestamp.is_none();
    if is_asked_for && !observed.services.iter().any(is_known) {
        observed.foreign = foreign_service(context, key, &mut observed).await?;
    }
    let mut ask_again = ask_pods(context, key, &mut observed);
    if let Some(again) = validate(context, key, &mut observed) {
        ask_again = Some(ask_again.map_or(again, |soonest| soonest.min(again)));
    }
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
        let before = questions.len();
        if !digest_is_given {
            questions.extend(unrecorded(observed, &revision));
        }
        // A revision that comes back when the status has forgotten it has its digest, and is not described.
        if questions.len() == before && !is_described(observed, &revision) {
            questions.extend(ready_pods(observed, &revision).find_map(question));
        }
    }
    let (reports, again) = context.asker.ask(key, &questions);
    observed.reports = reports.into_iter().collect();
    again
}

/// Has a candidate that is prepared answer the golden set, where the spec names one. Answers when to come back where
/// something was not reached.
fn validate(context: &Context, key: &Key, observed: &mut Observed) -> Option<Duration> {
    let rollout = observed.service.spec.rollout.as_ref();
    let validation = rollout.and_then(|rollout| rollout.validation.clone());
    let status = observed.service.status.as_ref();
    let status = status.and_then(|status| status.rollout.clone());
    let status = status.filter(|status| status.phase == RolloutPhase::Preparing);
    let (Some(validation), Some(status)) = (validation, status) else {
        context.golden.forget(key);
        return None;
    };
    let candidate = RevisionName::new(status.candidate?);
    let asked = Asked::of(observed, &candidate)?;
    let stable = status.stable.map(RevisionName::new);
    let stable = stable.and_then(|stable| Asked::of(observed, &stable));
    let outcome = context.golden.of(
        key,
        &validation.uri,
        asked.pod(),
        stable.as_ref().map(Asked::pod),
    );
    let mut again = None;
    let golden = match outcome {
        None => Golden::Running,
        Some(Outcome::Judged(judgement)) => match judgement.verdict(validation.min_agreement()) {
            Verdict::Passed(how) => Golden::Passed(how),
            Verdict::Failed(how) => Golden::Failed(how),
        },
        Some(Outcome::Unusable(why)) => Golden::Failed(why),
        Some(Outcome::Unreached { why, again: after }) => {
            again = Some(after);
            Golden::Unreached(why)
        }
    };
    observed.golden = Some((candidate, golden));
    again
}

/// A ready pod that can be asked, and by which name.
struct Asked {
    revision: RevisionName,
    address: String,
    model: String,
}

impl Asked {
    fn of(observed: &Observed, revision: &RevisionName) -> Option<Self> {
        let address =
            ready_pods(observed, revision).find_map(|pod| pod.status.as_ref()?.pod_ip.clone())?;
        let mut records = observed.revisions.iter();
        let record = records.find(|r| r.metadata.name.as_deref() == Some(revision.as_str()))?;
        let record = Revision::read(record).ok()?;
        let model = record.data.template.model.name;
        Some(Self {
            revision: revision.clone(),
            address,
            model: model.unwrap_or_else(|| observed.name().to_owned()),
        })
    }

    fn pod(&self) -> golden::Pod<'_> {
        golden::Pod {
            revision: self.revision.as_str(),
            address: &self.address,
            model: &self.model,
        }
    }
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
