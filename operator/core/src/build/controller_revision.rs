//! The ControllerRevision that stores a revision.

use k8s_openapi::{api::apps::v1::ControllerRevision, apimachinery::pkg::runtime::RawExtension};

use super::{Owner, revision_labels};
use crate::revision::{Data, RevisionName};

/// Created once; its data is immutable by the API.
#[must_use]
pub fn controller_revision(
    owner: &Owner,
    revision: &RevisionName,
    number: i64,
    data: &Data,
) -> ControllerRevision {
    let data = serde_json::to_value(data)
        .expect("a revision holds strings, numbers, lists and maps with string keys");
    ControllerRevision {
        metadata: owner.meta(revision.as_str(), revision_labels(&owner.name, revision)),
        revision: number,
        data: Some(RawExtension(data)),
    }
}
