//! `status`: what the operator saw and decided.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the operator saw and decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InferenceServiceStatus {
    /// The generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` (the spec is what serves), `Available` (some revision serves), `Progressing`, and
    /// `Stalled` (present only when true).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Where clients inside the cluster reach the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `host:port` for each protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// Which revision gets which share of the requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<Traffic>,
    /// The revisions that have pods, and the newest one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub revisions: Vec<RevisionStatus>,
    /// Pods of all revisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Ready pods of the revision that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
}

/// `host:port` for each protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// The Open Inference Protocol over HTTP.
    pub rest: String,
}

/// A revision's share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// The revision's name.
    pub revision: String,
    /// Percent of the requests, 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    pub weight: i32,
}

/// One revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// The name of the ControllerRevision, the Deployment and the rest.
    pub name: String,
    /// What the revision is doing.
    pub phase: RevisionPhase,
    /// What the model's file hashes to, given by the user or recorded from the first pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The server's image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How many pods are wanted.
    #[serde(default)]
    pub replicas: i32,
    /// How many pods are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Why pods of this revision failed last; cleared when it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
}

/// What a revision is doing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum RevisionPhase {
    /// Its pods are not all ready yet.
    #[default]
    Starting,
    /// It gets the requests.
    Serving,
    /// Another revision took over; it finishes what it has.
    Draining,
    /// It cannot serve until something changes.
    Failed,
    /// It is kept without pods.
    Stopped,
}

/// Why pods failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// The cause in one word, as in the condition.
    pub reason: String,
    /// The cause in a sentence.
    pub message: String,
    /// The exit code of the server, when it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}
