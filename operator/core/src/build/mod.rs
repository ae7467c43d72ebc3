//! The objects of a service, one file a kind. Deterministic: the same inputs give the same bytes.

mod config_map;
mod controller_revision;
mod deployment;
mod disruption_budget;
mod examples;
mod pod;
mod reference_grant;
mod route;
mod service;

use std::collections::BTreeMap;

pub use config_map::config_map;
pub use controller_revision::controller_revision;
pub use deployment::deployment;
pub use disruption_budget::disruption_budget;
pub use examples::examples;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use ortolan_crds::{InferenceService, names};
pub use pod::pod_template;
pub use reference_grant::{RouterService, reference_grant, reference_grant_name};
pub use route::{Backends, grpc_route, grpc_route_name, http_route, parents};
pub use service::{Front, backend_service, backend_service_name, revision_service, service};

use crate::revision::RevisionName;

/// Who owns what is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The InferenceService's name.
    pub name: String,
    /// Its namespace, and that of everything that is built.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
}

impl Owner {
    /// Reads the owner from the object.
    #[must_use]
    pub fn of(service: &InferenceService) -> Self {
        let meta = &service.metadata;
        Self {
            name: meta.name.clone().unwrap_or_default(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }

    /// Metadata of an owned object.
    fn meta(&self, name: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![OwnerReference {
                api_version: "serving.ortolan.dev/v1alpha1".into(),
                kind: "InferenceService".into(),
                name: self.name.clone(),
                uid: self.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        }
    }
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Labels of what belongs to a service as a whole.
fn service_labels(service: &str) -> BTreeMap<String, String> {
    map([
        (names::MANAGED_BY, names::ORTOLAN),
        (names::APP_NAME, service),
        (names::SERVICE, service),
    ])
}

/// Labels of what belongs to one revision.
fn revision_labels(service: &str, revision: &RevisionName) -> BTreeMap<String, String> {
    let mut labels = service_labels(service);
    labels.insert(names::REVISION.into(), revision.as_str().into());
    labels
}

/// What selects the pods of a revision.
fn selector(service: &str, revision: &RevisionName) -> BTreeMap<String, String> {
    map([
        (names::SERVICE, service),
        (names::REVISION, revision.as_str()),
    ])
}

fn label_selector(service: &str, revision: &RevisionName) -> LabelSelector {
    LabelSelector {
        match_labels: Some(selector(service, revision)),
        match_expressions: None,
    }
}

#[cfg(test)]
mod tests;
