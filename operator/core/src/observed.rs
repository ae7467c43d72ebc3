//! Everything that is read about one InferenceService, once, at the start of a reconcile.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment},
        core::v1::{ConfigMap, Pod, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use ortolan_crds::{ColdStart, InferenceService, ModelStatus, ProviderStatus, names};

use crate::{
    failure,
    gateway::Routes,
    revision::RevisionName,
    rollout::{observed::Golden, routers::Routers},
};

/// What a pod said of itself on `/healthz/startup`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What the model's file hashed to, `sha256:…`.
    pub digest: String,
    /// The rest, for the status.
    pub about: About,
}

/// What the status tells of a revision from a pod's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Where the model runs.
    pub provider: Option<ProviderStatus>,
    /// What it takes and gives.
    pub model: Option<ModelStatus>,
    /// How long the start took.
    pub cold_start: Option<ColdStart>,
}

/// Everything that is read about one InferenceService. Objects carry its labels, which does not make
/// them its own: [`Observed::owns`] tells.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The InferenceService.
    pub service: InferenceService,
    /// ControllerRevisions.
    pub revisions: Vec<ControllerRevision>,
    /// Deployments.
    pub deployments: Vec<Deployment>,
    /// Services.
    pub services: Vec<Service>,
    /// PodDisruptionBudgets.
    pub budgets: Vec<PodDisruptionBudget>,
    /// ConfigMaps.
    pub config_maps: Vec<ConfigMap>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// An object that has a name which we need, and that is not ours.
    pub foreign: Option<Foreign>,
    /// What ready pods said of themselves, by the pod's UID.
    pub reports: BTreeMap<String, Report>,
    /// When the API server last did not answer, if that is known.
    pub outage: Option<Timestamp>,
    /// What the routers say of the service.
    pub routers: Routers,
    /// The golden set's verdict on a revision.
    pub golden: Option<(RevisionName, Golden)>,
    /// Its routes of the Gateway API.
    pub routes: Routes,
}

/// An object of somebody else's under a name that the operator needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

impl Observed {
    /// The InferenceService's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.service.metadata.name.as_deref().unwrap_or_default()
    }

    /// The InferenceService's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.service
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }

    /// The InferenceService's UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.service.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Whether an object is controlled by this very InferenceService.
    #[must_use]
    pub fn owns(&self, meta: &ObjectMeta) -> bool {
        controlled_by(meta, self.uid())
    }

    /// The Deployment of a revision.
    #[must_use]
    pub fn deployment(&self, revision: &RevisionName) -> Option<&Deployment> {
        find(&self.deployments, |d| &d.metadata, revision.as_str())
            .filter(|d| self.owns(&d.metadata))
    }

    /// The pods of a revision that have not ended for good.
    #[must_use]
    pub fn pods_of(&self, revision: &RevisionName) -> Vec<&Pod> {
        self.pods
            .iter()
            .filter(|pod| label(&pod.metadata, names::REVISION) == Some(revision.as_str()))
            .filter(|pod| !(failure::is_over(pod) && failure::is_ending(pod)))
            .collect()
    }

    /// The digest that was recorded for a revision.
    #[must_use]
    pub fn recorded_digest(&self, revision: &RevisionName) -> Option<&str> {
        find(&self.config_maps, |c| &c.metadata, revision.as_str())
            .filter(|c| self.owns(&c.metadata))
            .and_then(|c| c.data.as_ref()?.get(names::DIGEST_KEY))
            .map(String::as_str)
    }
}

/// Whether an object is controlled by the owner with this UID.
#[must_use]
pub fn controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// Finds an object by name.
pub(crate) fn find<'a, K>(
    objects: &'a [K],
    meta: impl Fn(&K) -> &ObjectMeta,
    name: &str,
) -> Option<&'a K> {
    objects
        .iter()
        .find(|object| meta(object).name.as_deref() == Some(name))
}

/// An object's label.
pub(crate) fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}
