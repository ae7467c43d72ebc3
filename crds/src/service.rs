//! The `InferenceService` and the parts of its spec that change nothing inside a pod.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Model, Pod, Rollout, Routing, Server, status::InferenceServiceStatus};

/// A model and how to serve it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "serving.ortolan.dev",
    version = "v1alpha1",
    kind = "InferenceService",
    plural = "inferenceservices",
    singular = "inferenceservice",
    shortname = "oisvc",
    category = "all",
    category = "ortolan",
    namespaced,
    status = "InferenceServiceStatus",
    scale(
        spec_replicas_path = ".spec.scaling.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    derive = "PartialEq",
    derive = "Default",
    doc = "An InferenceService serves one ONNX model: a Deployment of Ortolan's server for each revision of it, and a Service in front of the one that is ready.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.traffic[0].revision"),
    printcolumn(name = "Rollout", type_ = "string", json_path = ".status.rollout.phase"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".status.rollout.weight"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model.uri", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 50")
        .message("the name is over 50 characters, and a revision adds 9 to it: choose a shorter metadata.name"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name becomes a Service's name, so it must be a DNS-1035 label: lower-case letters, digits and '-', beginning with a letter and ending with a letter or digit (model-v2, not model.v2 or 3d-model)"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.server) || !has(self.server.pipeline) || !self.model.uri.matches('^https?://[^?#]*[.]onnx([?#].*)?$') || (self.server.pipeline.input.kind != 'text' && !has(self.server.pipeline.output.labels))")
        .message("labels and the tokenizer are files beside the model, and a bare .onnx over HTTP comes alone: put them into an archive with it, such as model.tar.gz"),
    validation = Rule::new("!has(self.routing) || !has(self.routing.stateful) || !self.routing.stateful || !has(self.rollout) || !has(self.rollout.shadow)")
        .message("a stateful model would remember a copied request as another one: leave rollout.shadow out, or routing.stateful"),
    validation = Rule::new("!has(self.pod) || !has(self.pod.terminationGracePeriod) || !has(self.routing) || !has(self.routing.timeout) || !self.pod.terminationGracePeriod.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') || self.pod.terminationGracePeriod == '' || !self.routing.timeout.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') || self.routing.timeout == '' || duration(self.pod.terminationGracePeriod) >= duration(self.routing.timeout) + duration('10s')")
        .message("a pod that ends needs routing.timeout and 10s more for what it works on: write a longer pod.terminationGracePeriod, or leave it out"),
    validation = Rule::new("!has(self.routing) || !has(self.routing.provider) || self.routing.provider != 'GatewayAPI' || !has(self.rollout) || (!has(self.rollout.steps) && (has(self.rollout.weight) || !has(self.rollout.strategy) || self.rollout.strategy != 'Canary'))")
        .message("steps go on by what the routers count, and with routing.provider: GatewayAPI requests do not pass them: write rollout.weight to set the share by hand, or strategy: BlueGreen, or routing.provider: Router"),
    validation = Rule::new("!has(self.routing) || !has(self.routing.provider) || self.routing.provider != 'GatewayAPI' || !has(self.rollout) || !has(self.rollout.shadow)")
        .message("rollout.shadow copies requests in the routers, and with routing.provider: GatewayAPI requests do not pass them: leave shadow out, or write routing.provider: Router"),
    validation = Rule::new("!has(self.routing) || !has(self.routing.provider) || self.routing.provider != 'GatewayAPI' || !has(self.rollout) || !has(self.rollout.analysis) || (!has(self.rollout.analysis.maxLatency) && !has(self.rollout.analysis.confidence) && !has(self.rollout.analysis.maxErrorRateRatio) && !has(self.rollout.analysis.minRequests) && !has(self.rollout.analysis.onInconclusive))")
        .message("rollout.analysis judges by what the routers count, and with routing.provider: GatewayAPI requests do not pass them: leave maxLatency, confidence, maxErrorRateRatio, minRequests and onInconclusive out, or write routing.provider: Router"),
)]
pub struct InferenceServiceSpec {
    /// Which model to serve. A change makes a new revision.
    pub model: Model,
    /// How the model is run. A change makes a new revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    /// Where and as what the pods run. A change makes a new revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// How many replicas. A change restarts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// How a new revision takes over. A change restarts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// How requests reach the pods. A change restarts nothing. All but `gateway` and `provider` needs the routers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    /// `true` scales the workloads to zero; nothing is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// How many replicas.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.replicas) || (has(self.scaler) && self.scaler == 'External')")
        .message("replicas is what others write through /scale, and with it scaler: External is needed: write that, or minReplicas instead of replicas"),
    validation = Rule::new("!has(self.replicas) || !has(self.minReplicas) || self.replicas >= self.minReplicas")
        .message("replicas is below minReplicas: scale to minReplicas or more, or write a smaller minReplicas"),
)]
pub struct Scaling {
    /// How many pods serve; 1 when absent. With `scaler: External` how many do until somebody scales, and the fewest that may be asked for.
    /// To stop them all write `suspend: true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 1 && self <= 1000")
            .message("write a number from 1 to 1000; to stop all pods write suspend: true"),
    )]
    pub min_replicas: Option<i32>,
    /// Who scales. Nobody when absent: `minReplicas` pods serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaler: Option<Scaler>,
    /// Only with `scaler: External`: how many pods serve, written through `/scale`; `minReplicas` until somebody has. Leave it out of Git.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 1 && self <= 1000")
            .message("scale to a number from 1 to 1000; to stop all pods write suspend: true"),
    )]
    pub replicas: Option<i32>,
}

/// Who scales. Nobody when absent: `minReplicas` pods serve. `External`: a HorizontalPodAutoscaler, KEDA or a person,
/// through `/scale` of the InferenceService.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Scaler {
    /// Whoever writes `/scale` of the InferenceService.
    External,
}

impl InferenceServiceSpec {
    /// How many pods should serve: 0 when suspended.
    #[must_use]
    pub fn replicas(&self) -> i32 {
        if self.suspended() {
            return 0;
        }
        let scaling = self.scaling.as_ref();
        let written = scaling.and_then(|scaling| scaling.replicas.or(scaling.min_replicas));
        written.unwrap_or(1)
    }

    /// Who says how many pods serve, if it is not the spec alone.
    #[must_use]
    pub fn scaler(&self) -> Option<Scaler> {
        self.scaling.as_ref()?.scaler
    }

    /// Whether the user stopped the service.
    #[must_use]
    pub fn suspended(&self) -> bool {
        self.suspend.unwrap_or(false)
    }
}
