//! The Deployment of a revision.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};

use super::{Owner, label_selector, revision_labels};
use crate::revision::{Resolved, RevisionName};

/// Seconds until a Deployment whose pods never were all ready counts as failed.
const PROGRESS_DEADLINE: i32 = 600;

/// `replicas` is given when the Deployment is created (without it the API server writes 1), and left
/// out once `ortolan/autoscaler` owns the field.
#[must_use]
pub fn deployment(
    owner: &Owner,
    revision: &RevisionName,
    resolved: &Resolved,
    replicas: Option<i32>,
) -> Deployment {
    Deployment {
        metadata: owner.meta(revision.as_str(), revision_labels(&owner.name, revision)),
        spec: Some(DeploymentSpec {
            replicas,
            selector: label_selector(&owner.name, revision),
            template: resolved.pod.clone(),
            progress_deadline_seconds: Some(PROGRESS_DEADLINE),
            revision_history_limit: Some(1),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}
