//! Names of labels, annotations, field managers and fixed places in a pod: written once, since the
//! operator, the chart, the tests and the documentation have to agree.

/// The API group.
pub const GROUP: &str = "serving.ortolan.dev";

/// `app.kubernetes.io/managed-by`: everything that the operator makes carries it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const ORTOLAN: &str = "ortolan";
/// `app.kubernetes.io/name`: the InferenceService's name.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// The InferenceService that an object belongs to.
pub const SERVICE: &str = "serving.ortolan.dev/service";
/// The revision that an object belongs to.
pub const REVISION: &str = "serving.ortolan.dev/revision";

/// On a Service that Gateways send requests to: the revision whose pods it selects. Another label than [`REVISION`], by
/// which routers find pods: they would find each pod twice.
pub const BACKEND: &str = "serving.ortolan.dev/backend";
/// On an HTTPRoute or a GRPCRoute with weights: which change of the traffic they are, `status.rollout.generation`.
pub const TRAFFIC: &str = "serving.ortolan.dev/traffic";
/// On a ReferenceGrant: the namespace whose routes it lets point at the routers.
pub const GRANTED: &str = "serving.ortolan.dev/granted";

/// On a ControllerRevision: this revision is the stable one. Written before the status, so that
/// losing the status loses nothing.
pub const STABLE: &str = "serving.ortolan.dev/stable";
/// On every applied object: a hash of what the operator wants, so that a field which is wanted no
/// longer is noticed too.
pub const DESIRED: &str = "serving.ortolan.dev/desired";
/// A pod annotation that a user changes to get a new revision of the same model.
pub const RESTARTED_AT: &str = "serving.ortolan.dev/restartedAt";

/// On an InferenceService: `<verb> <revision> <nonce>`, a command to a rollout under way.
pub const COMMAND: &str = "serving.ortolan.dev/command";

/// The field manager of everything but replicas and status.
pub const MANAGER_SERVICE: &str = "ortolan/service";
/// The field manager of a Deployment's `spec.replicas`.
pub const MANAGER_AUTOSCALER: &str = "ortolan/autoscaler";
/// The field manager of an InferenceService's status.
pub const MANAGER_STATUS: &str = "ortolan/status";

/// The container that serves.
pub const CONTAINER: &str = "server";
/// The port that the container listens on.
pub const CONTAINER_PORT: i32 = 8080;
/// The port of the Service.
pub const SERVICE_PORT: i32 = 80;
/// Where a pod keeps what it downloads (an emptyDir).
pub const CACHE_DIR: &str = "/var/cache/ortolan";
/// Where the revision's ConfigMap is mounted.
pub const REVISION_DIR: &str = "/etc/ortolan/revision";
/// The key of the revision's ConfigMap that holds the recorded digest.
pub const DIGEST_KEY: &str = "digest";
/// The ConfigMap with examples of answers that differ, of the service with this name. No revision's object is named so:
/// those end with eight hexadecimal digits.
#[must_use]
pub fn examples(service: &str) -> String {
    format!("{service}-examples")
}
/// The key of that ConfigMap that holds the examples, a line of JSON each.
pub const EXAMPLES_KEY: &str = "examples.jsonl";
/// The key of that ConfigMap that names the revision whose answers users got.
pub const EXAMPLES_STABLE: &str = "stable";
/// The key of that ConfigMap that names the revision whose answers differ.
pub const EXAMPLES_CANDIDATE: &str = "candidate";
/// Where the credentials' Secret is mounted.
pub const CREDENTIALS_DIR: &str = "/etc/ortolan/credentials";
/// The folder that holds a folder for each mounted claim.
pub const PVC_ROOT: &str = "/mnt/pvc";
/// Longest name of an InferenceService: `-` and 8 characters of a hash are added to it, 4 more on a
/// collision, and a label's value ends at 63.
pub const MAX_NAME: usize = 50;
