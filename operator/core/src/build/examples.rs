//! The ConfigMap with examples of answers that differ.

use k8s_openapi::api::core::v1::ConfigMap;
use ortolan_crds::names;

use super::{Owner, map, service_labels};

/// Of one rollout: which revisions, and a line of JSON for each example.
#[must_use]
pub fn examples(owner: &Owner, stable: &str, candidate: &str, lines: &[String]) -> ConfigMap {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let name = names::examples(&owner.name);
    ConfigMap {
        metadata: owner.meta(&name, service_labels(&owner.name)),
        data: Some(map([
            (names::EXAMPLES_STABLE, stable),
            (names::EXAMPLES_CANDIDATE, candidate),
            (names::EXAMPLES_KEY, &text),
        ])),
        ..ConfigMap::default()
    }
}
