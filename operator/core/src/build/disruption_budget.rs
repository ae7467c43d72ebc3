//! The PodDisruptionBudget of a revision.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Owner, label_selector, revision_labels};
use crate::revision::RevisionName;

/// One pod at a time: a drain of nodes is slowed down, and never blocked for ever, which
/// `minAvailable` would do with one replica. Pods that are not ready may always go.
#[must_use]
pub fn disruption_budget(owner: &Owner, revision: &RevisionName) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: owner.meta(revision.as_str(), revision_labels(&owner.name, revision)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(label_selector(&owner.name, revision)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
