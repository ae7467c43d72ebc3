//! `spec.pod`: where and as what the pods run. A small typed set, not a whole PodSpec.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, Toleration, TopologySpreadConstraint,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Where and as what the pods run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate. A pod with `nvidia.com/gpu` tolerates the taint of that name
    /// without being told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub tolerations: Vec<Toleration>,
    /// Affinity, as in a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Spreading, as in a pod. A constraint without a `labelSelector` counts the revision's pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// The PriorityClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// The RuntimeClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// Secrets with which the image is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Labels of the pods, beside the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    #[x_kube(
        validation = Rule::new("self.all(k, !k.startsWith('serving.ortolan.dev/') && k != 'app.kubernetes.io/managed-by' && k != 'app.kubernetes.io/name')")
            .message("labels under serving.ortolan.dev/, app.kubernetes.io/name and app.kubernetes.io/managed-by are the operator's own: choose another key"),
    )]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods. Change `serving.ortolan.dev/restartedAt` to get a new revision of the
    /// same model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    #[x_kube(
        validation = Rule::new("self.all(k, !k.startsWith('serving.ortolan.dev/') || k == 'serving.ortolan.dev/restartedAt')")
            .message("of the annotations under serving.ortolan.dev/ only restartedAt is yours to set: choose another key"),
    )]
    pub annotations: BTreeMap<String, String>,
    /// The ServiceAccount of the pods. Whoever may create an InferenceService may use every
    /// ServiceAccount of its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Whether the pods get the ServiceAccount's token; `false` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automount_service_account_token: Option<bool>,
    /// How long a pod may take to end, such as `45s`: at least 15 s, since it serves on for the first 5
    /// while it leaves the Service. `routing.timeout` and 15 s more when absent: 45 s, unless that says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new(schema::DURATION)
            .message("write a duration in hours, minutes and seconds, such as 45s or 2m30s"),
        validation = Rule::new("!self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') || self == '' || duration(self) >= duration('15s')")
            .message("write at least 15s: a pod serves on for 5s while it leaves the Service, then finishes what it has"),
    )]
    pub termination_grace_period: Option<String>,
}
