//! `spec.server`: how the model is run.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::EnvVar, apimachinery::pkg::api::resource::Quantity};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{Pipeline, schema};

/// How the model is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.accelerator) || !has(self.accelerator.resource) || !has(self.resources) || !((has(self.resources.limits) && self.accelerator.resource in self.resources.limits) || (has(self.resources.requests) && self.accelerator.resource in self.resources.requests))")
        .message("the accelerator's resource stands under resources too: write it once, under accelerator"),
    validation = Rule::new("!has(self.pipeline) || !has(self.managementApi) || !self.managementApi")
        .message("a pipeline is for one model, and managementApi for a repository of several: leave one of them out, and put a model.yaml into each model's folder"),
    validation = Rule::new("!has(self.pipeline) || !has(self.extraArgs) || !self.extraArgs.exists(a, a.matches('^--model-config(=|$)'))")
        .message("pipeline and the argument --model-config say the same: write one of them"),
)]
pub struct Server {
    /// The server's image; the release's image for the provider when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// CPU, memory and other resources of one pod. When absent: requests of 1 CPU and 512Mi, a
    /// memory limit of 1Gi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// A GPU or another device, by extended resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<Accelerator>,
    /// Parallel ONNX Runtime sessions: a number or `auto` (the pod's CPU limit, else its request,
    /// rounded up; 1 with an accelerator).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    /// Threads inside one run; 1 when absent. Large models: fewer sessions, more threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub threads: Option<i32>,
    /// How waiting requests are run together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batching: Option<Batching>,
    /// Requests that one pod works on at a time, waiting ones included; one more is answered 503 with `Retry-After`
    /// (gRPC: RESOURCE_EXHAUSTED) at once. Health and metrics do not count. When absent only `batching.maxQueue`
    /// bounds what waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrency: Option<i32>,
    /// Whether a pod runs the model before it is ready; `Auto` when absent. `Off` is for a model that cannot run on
    /// invented inputs, and for one whose first run takes too long: the first request of each session then pays for it, a
    /// model that fails is not found out before requests do, and rows run together only where `batching` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Warmup>,
    /// From a photograph, a text, a file or rows to an answer: what `pipeline` is in `model.yaml`, in the place of the
    /// model's own. Labels and the tokenizer that it names are files of the model's archive or folder. For one model; in
    /// a repository each has a `model.yaml` of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Pipeline>,
    /// Lets clients load and unload the models of a repository (`POST /v2/repository/models/NAME/load`); not when
    /// absent. Whoever reaches the Service can then do it, in the one pod that answers. `model.uri` must be a repository
    /// (`NAME/VERSION/model.onnx`); every model of it is loaded at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management_api: Option<bool>,
    /// Environment variables of the server's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[x_kube(
        validation = Rule::new("self.all(e, !e.name.startsWith('ORTOLAN_'))")
            .message("names that begin with ORTOLAN_ are the server's own options: use the field of that option, or extraArgs"),
    )]
    pub env: Vec<EnvVar>,
    /// More arguments for the server, after the operator's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 1024)))]
    #[x_kube(
        validation = Rule::new("self.all(a, !a.matches('^--(name|model-version|digest|recorded-digest-file|http|sessions|threads|max-batch|preferred-batch|max-delay|queue|management-api|model-control|load-model|model-config-inline|max-concurrency|warm-up|provider|fallback|cache-dir|pvc-root|credentials-dir|drain-delay|grace)(=|$)'))")
            .message("this argument is the operator's to set: use the field of that name under model, server or pod"),
    )]
    pub extra_args: Vec<String>,
}

/// Resources of one pod, as in a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// What a pod may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

/// How waiting requests are run together: joined along the first dimension, where the model's graph allows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.maxBatchSize) || self.maxBatchSize > 1 || (!has(self.preferredBatchSizes) && !has(self.maxDelay))")
        .message("maxBatchSize: 1 runs each request alone: leave preferredBatchSizes and maxDelay out, or write a larger maxBatchSize"),
    validation = Rule::new("!has(self.maxBatchSize) || !has(self.preferredBatchSizes) || self.preferredBatchSizes.all(n, n <= self.maxBatchSize)")
        .message("a preferred batch size is larger than maxBatchSize: write sizes up to it"),
)]
pub struct Batching {
    /// Rows that run together at most, and a request of more is refused; 1 runs each request alone. When
    /// absent the server measures the model at its start and runs up to 32 rows together where that pays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_batch_size: Option<i32>,
    /// Numbers of rows that run as soon as they wait, while others wait for `maxDelay`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(range(min = 1, max = 4096)))]
    pub preferred_batch_sizes: Vec<i32>,
    /// How long a request may be held back for others to run with, such as `2ms`; not at all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    #[x_kube(
        validation = Rule::new("self.matches('^[0-9]{1,5}(ms|s)$')")
            .message("write a delay in milliseconds or seconds, such as 2ms"),
    )]
    pub max_delay: Option<String>,
    /// Requests that may wait for a session; one more is answered 503. 256 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_queue: Option<i32>,
}

/// A device from an extended resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.count) || has(self.resource)")
        .message("count needs resource: write resource: nvidia.com/gpu, or another extended resource, beside it"),
)]
pub struct Accelerator {
    /// The extended resource: `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb`, `amd.com/gpu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && !self.startsWith('kubernetes.io/')")
            .message("write an extended resource with its domain, such as nvidia.com/gpu"),
    )]
    pub resource: Option<String>,
    /// How many of the resource a pod gets; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<i32>,
    /// The ONNX Runtime execution provider. When absent it follows from the resource: `nvidia.com/*`
    /// → CUDA, anything else → CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// What happens when the provider does not load; `Fail` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// Whether a pod runs the model before it is ready.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Warmup {
    /// Each session runs once, on inputs made from the model's graph; a run that fails ends the start.
    #[default]
    Auto,
    /// The first request of each session is its first run.
    Off,
}

/// An ONNX Runtime execution provider.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Provider {
    /// The CPU.
    CPU,
    /// NVIDIA's CUDA.
    CUDA,
}

impl Provider {
    /// As it stands in the API and on the server's command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CPU => "CPU",
            Self::CUDA => "CUDA",
        }
    }
}

/// What happens when the provider does not load.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Fallback {
    /// The server exits with the documented code.
    #[default]
    Fail,
    /// The server serves on the CPU and reports it.
    Allow,
}

/// `auto` or a number of sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sessions {
    /// A fixed number.
    Count(i32),
    /// `auto`: from the pod's CPU.
    Named(String),
}

impl schemars::JsonSchema for Sessions {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sessions".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schema::sessions(generator)
    }
}
