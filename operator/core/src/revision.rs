//! Revisions: what makes two of them the same, what one is named, and what is stored of it.
//!
//! A revision's identity is its [`Template`]: what the user wrote under `model`, `server` and `pod`.
//! Two templates are the same revision when their canonical values are equal; the hash only names
//! it. What the operator fills in ([`Resolved`]) is frozen beside it and is no part of the identity,
//! so that neither an upgrade of the operator nor new defaults restart a pod.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    jiff::Timestamp,
};
use ortolan_crds::{InferenceServiceSpec, Model, Pod, Server, names};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// A revision's name, `{service}-{hash8}`: also that of its Deployment, PodDisruptionBudget and ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevisionName(String);

impl RevisionName {
    /// A name that was read from an object.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// As it stands in objects and labels.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RevisionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the user wrote that makes a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// `spec.model`
    pub model: Model,
    /// `spec.server`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    /// `spec.pod`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
}

impl Template {
    /// The part of a spec that makes a revision.
    #[must_use]
    pub fn of(spec: &InferenceServiceSpec) -> Self {
        Self {
            model: spec.model.clone(),
            server: spec.server.clone(),
            pod: spec.pod.clone(),
        }
    }

    /// The value whose equality decides: keys sorted, and nothing that is empty, for `server: {}` and
    /// an absent `server` mean the same.
    #[must_use]
    pub fn canonical(&self) -> Value {
        let value = serde_json::to_value(self)
            .expect("a template holds strings, numbers, lists and maps with string keys");
        prune(value).unwrap_or_else(|| Value::Object(Map::new()))
    }

    /// Eight hexadecimal digits of the canonical value's SHA-256. Never changes for a given template.
    #[must_use]
    pub fn hash(&self) -> String {
        hash8(&self.canonical())
    }
}

/// Eight hexadecimal digits of the SHA-256 of a value, written as compact JSON with sorted keys.
#[must_use]
pub fn hash8(value: &Value) -> String {
    let mut text = String::new();
    write_sorted(value, &mut text);
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Sorts keys here, since whether `serde_json` does is a feature that any crate may switch.
fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let by_key: BTreeMap<&String, &Value> = map.iter().collect();
            text.push('{');
            for (place, (key, value)) in by_key.into_iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_sorted(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write_sorted(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// Takes nulls, empty maps and empty lists out, from the leaves up.
fn prune(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(map) => {
            let map: Map<String, Value> = map
                .into_iter()
                .filter_map(|(k, v)| prune(v).map(|v| (k, v)))
                .collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        // A list's elements keep their places: an empty one inside it may mean something.
        Value::Array(items) => (!items.is_empty()).then_some(Value::Array(items)),
        scalar => Some(scalar),
    }
}

/// What the operator filled in when it made the revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// The server's image.
    pub image: String,
    /// The whole pod, as every pod of this revision will be.
    pub pod: PodTemplateSpec,
}

/// What a ControllerRevision holds: immutable once written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// What the user wrote.
    pub template: Template,
    /// What the operator made of it.
    pub resolved: Resolved,
}

/// A revision as it stands in the cluster, or as it is about to be created.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Its name.
    pub name: RevisionName,
    /// Its place in the order of revisions; the newest has the highest.
    pub number: i64,
    /// When it became the one that serves; the latest of all revisions is the stable one.
    pub stable_since: Option<Timestamp>,
    /// What it holds.
    pub data: Data,
}

impl Revision {
    /// Reads a ControllerRevision.
    ///
    /// # Errors
    /// A sentence that names the object, when its data is not ours to read.
    pub fn read(object: &ControllerRevision) -> Result<Self, String> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let data = object
            .data
            .as_ref()
            .ok_or_else(|| format!("ControllerRevision {name} holds no data"))?;
        let data = serde_json::from_value(data.0.clone())
            .map_err(|e| format!("ControllerRevision {name} cannot be read: {e}"))?;
        let stable_since = object
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(names::STABLE))
            .and_then(|at| at.parse().ok());
        Ok(Self {
            name: RevisionName(name),
            number: object.revision,
            stable_since,
            data,
        })
    }
}

/// Whether the user gave the digest of a stored revision: without reading all of it, since a pod's
/// template is long and this is asked at every reconcile.
#[must_use]
pub fn digest_is_given(object: &ControllerRevision) -> bool {
    object
        .data
        .as_ref()
        .is_some_and(|data| data.0.pointer("/template/model/digest").is_some())
}

/// The revision that the newest mark names.
#[must_use]
pub fn stable(revisions: &[Revision]) -> Option<&Revision> {
    revisions
        .iter()
        .filter(|revision| revision.stable_since.is_some())
        .max_by_key(|revision| (revision.stable_since, revision.number))
}

/// The existing revision with this template, or the name that a new one gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// This revision has the template already.
    Known(RevisionName),
    /// No revision has it: a new one gets this name and number.
    New(RevisionName, i64),
}

/// Finds the revision of a template among those of one service. A hash that another template has
/// taken gets a suffix: `-2`, `-3`, ….
#[must_use]
pub fn identify(service: &str, template: &Template, revisions: &[Revision]) -> Identity {
    let wanted = template.canonical();
    if let Some(known) = revisions
        .iter()
        .find(|r| r.data.template.canonical() == wanted)
    {
        return Identity::Known(known.name.clone());
    }
    let base = format!("{service}-{}", template.hash());
    let taken = |name: &str| revisions.iter().any(|r| r.name.as_str() == name);
    let mut name = base.clone();
    let mut suffix = 2;
    while taken(&name) {
        name = format!("{base}-{suffix}");
        suffix += 1;
    }
    let number = revisions.iter().map(|r| r.number).max().unwrap_or(0) + 1;
    Identity::New(RevisionName(name), number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(value: Value) -> Template {
        serde_json::from_value(value).expect("a template")
    }

    fn revision(name: &str, number: i64, uri: &str) -> Revision {
        let data = Data {
            template: template(json!({"model": {"uri": uri}})),
            resolved: Resolved::default(),
        };
        Revision {
            name: RevisionName::new(name),
            number,
            stable_since: None,
            data,
        }
    }

    /// Golden: a change here would restart every pod of every user.
    #[test]
    fn hashes_never_change() {
        let cases = [
            (
                json!({"model": {"uri": "https://models.example.com/m.onnx"}}),
                "1ad331e3",
            ),
            (
                json!({"model": {"uri": "https://models.example.com/m.onnx", "version": "3"},
                       "server": {"resources": {"requests": {"cpu": 1}}, "threads": 2},
                       "pod": {"nodeSelector": {"zone": "a"}}}),
                "db941420",
            ),
            // Every field of `server` beside those above: what is added later must not change these either.
            (
                json!({"model": {"uri": "https://models.example.com/m.onnx"},
                       "server": {"image": "i", "accelerator": {"resource": "nvidia.com/gpu", "fallback": "Allow"}, "sessions": "auto",
                                  "batching": {"maxBatchSize": 8, "preferredBatchSizes": [4], "maxDelay": "2ms", "maxQueue": 9},
                                  "managementApi": true, "env": [{"name": "A", "value": "b"}], "extraArgs": ["--x"]}}),
                "5ddfa401",
            ),
            (
                json!({"model": {"uri": "https://models.example.com/m.tar"},
                       "server": {"pipeline": {"input": {"kind": "image", "width": 224, "height": 224, "mean": [127], "std": [0.5]},
                                               "output": {"kind": "classification", "labels": "l.txt", "topK": 3}}}}),
                "c8b83946",
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(template(value.clone()).hash(), expected, "{value}");
        }
    }

    #[test]
    fn what_means_the_same_is_the_same_revision() {
        let plain = template(json!({"model": {"uri": "https://a/m.onnx"}}));
        for same in [
            json!({"model": {"uri": "https://a/m.onnx"}, "server": {}}),
            json!({"server": {"env": [], "resources": {"limits": {}}}, "model": {"uri": "https://a/m.onnx"}}),
            json!({"model": {"uri": "https://a/m.onnx", "digest": null}, "pod": {"labels": {}}}),
        ] {
            assert_eq!(
                template(same.clone()).canonical(),
                plain.canonical(),
                "{same}"
            );
        }
        let number = template(
            json!({"model": {"uri": "https://a/m.onnx"}, "server": {"resources": {"requests": {"cpu": 1}}}}),
        );
        let string = template(
            json!({"model": {"uri": "https://a/m.onnx"}, "server": {"resources": {"requests": {"cpu": "1"}}}}),
        );
        assert_eq!(number.hash(), string.hash());
    }

    #[test]
    fn a_known_template_is_found_again_and_a_new_one_is_numbered_after_the_newest() {
        let revisions = [
            revision("m-1", 1, "https://a/1.onnx"),
            revision("m-2", 4, "https://a/2.onnx"),
        ];
        let known = template(json!({"model": {"uri": "https://a/1.onnx"}, "pod": {}}));
        assert_eq!(
            identify("m", &known, &revisions),
            Identity::Known(RevisionName::new("m-1"))
        );
        let new = template(json!({"model": {"uri": "https://a/3.onnx"}}));
        assert_eq!(
            identify("m", &new, &revisions),
            Identity::New(RevisionName(format!("m-{}", new.hash())), 5)
        );
    }

    #[test]
    fn a_collision_of_hashes_gets_a_suffix() {
        let new = template(json!({"model": {"uri": "https://a/3.onnx"}}));
        let taken = format!("m-{}", new.hash());
        let revisions = [
            revision(&taken, 1, "https://a/other.onnx"),
            revision(&format!("{taken}-2"), 2, "https://a/another.onnx"),
        ];
        assert_eq!(
            identify("m", &new, &revisions),
            Identity::New(RevisionName(format!("{taken}-3")), 3)
        );
    }

    #[test]
    fn the_latest_mark_names_the_stable_revision() {
        let mut revisions = vec![
            revision("m-1", 1, "https://a/1.onnx"),
            revision("m-2", 2, "https://a/2.onnx"),
            revision("m-3", 3, "https://a/3.onnx"),
        ];
        assert_eq!(stable(&revisions), None);
        revisions[0].stable_since = Some("2026-01-02T00:00:00Z".parse().expect("a time"));
        revisions[1].stable_since = Some("2026-01-01T00:00:00Z".parse().expect("a time"));
        assert_eq!(stable(&revisions).map(|r| r.name.as_str()), Some("m-1"));
    }
}
