//! `status`: what the operator saw and decided.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::rollout_status::{self, RolloutStatus};

/// What the operator saw and decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InferenceServiceStatus {
    /// The generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` (the spec is what serves), `Available` (some revision serves), `Progressing`,
    /// `Stalled` (present only when true), and with `routing.gateway` `Routed` (the Gateways have taken the routes).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Where clients reach the service: under the first name in `routing.gateway.hostnames` once a Gateway has taken the
    /// route, and inside the cluster otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `host:port` for each protocol, of the Service, or of the Gateway as in `url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// Which revision gets which share of the requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<Traffic>,
    /// Where a rollout stands. Only where shares can be set, by routers or by Gateways: elsewhere a revision has all of the traffic or none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "rollout_status::read",
        serialize_with = "rollout_status::write"
    )]
    pub rollout: Option<RolloutStatus>,
    /// The revisions that are meant to have pods, and the newest one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub revisions: Vec<RevisionStatus>,
    /// Pods of the revisions listed here; what is on its way out does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Ready pods of the revision that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// With `scaling.scaler: External`: the labels of the pods, for who scales by what they use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}

/// `host:port` for each protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// The Open Inference Protocol over HTTP, and the other paths of the server.
    pub rest: String,
    /// The Open Inference Protocol over gRPC, on the same port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
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
    /// Where the model runs, as the first ready pod said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderStatus>,
    /// What the model takes and gives, as the first ready pod said; absent when it serves several models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelStatus>,
    /// How long the first ready pod's server took to start, by phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
    /// Why pods of this revision failed last; cleared when it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
}

/// The execution provider of ONNX Runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderStatus {
    /// The one that was asked for.
    pub requested: String,
    /// The one that runs; another one only with `fallback: Allow`.
    pub active: String,
}

/// What a model takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// The version in `/v2/models/{name}/versions/{version}`; where it is known, the routers send requests for it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The inputs, in the graph's order; the first 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<TensorStatus>,
    /// The outputs, in the graph's order; the first 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<TensorStatus>,
    /// The version of ONNX's operator set.
    #[serde(default)]
    pub opset: i64,
}

/// An input or an output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TensorStatus {
    /// The name in the graph.
    pub name: String,
    /// The element type, as the Open Inference Protocol calls it.
    pub datatype: String,
    /// The dimensions; -1 where any size will do.
    #[serde(default)]
    pub shape: Vec<i64>,
}

/// How long a server took to start, by phase: durations such as `166ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ColdStart {
    /// Bringing the model's bytes to the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch: Option<String>,
    /// Comparing digests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<String>,
    /// Taking an archive apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpack: Option<String>,
    /// Making the sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<String>,
    /// The first runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<String>,
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
