//! The revision's ConfigMap: the digest that its first pod reported.

use k8s_openapi::api::core::v1::ConfigMap;
use ortolan_crds::names;

use super::{Owner, map, revision_labels};
use crate::revision::RevisionName;

/// Mounted as optional into every pod of the revision, which holds itself to the digest.
#[must_use]
pub fn config_map(owner: &Owner, revision: &RevisionName, digest: &str) -> ConfigMap {
    ConfigMap {
        metadata: owner.meta(revision.as_str(), revision_labels(&owner.name, revision)),
        data: Some(map([(names::DIGEST_KEY, digest)])),
        ..ConfigMap::default()
    }
}
