//! `spec.model`: which model, and how to get at it.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Which model to serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.credentialsSecretRef) || self.uri.startsWith('http')")
        .message("credentialsSecretRef works with http:// and https:// only: leave it out, or serve the model over HTTP"),
)]
pub struct Model {
    /// Where the model is: `https://`, `http://`, `pvc://claim/path` or `file:///path` (in the
    /// server's image). A bare `.onnx`, or a `.tar`, `.tar.gz`, `.tar.zst` or `.zip` with one model,
    /// `model.yaml` and labels beside it.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(
        validation = Rule::new("self.startsWith('http://') || self.startsWith('https://') || self.startsWith('pvc://') || self.startsWith('file://')")
            .message("unknown scheme: write https://…, http://…, pvc://claim/path or file:///path"),
        validation = Rule::new("!self.startsWith('http') || self.matches('^https?://[^/?#@ ]+(/[^ ]*)?$')")
            .message("write http(s)://host[:port]/path without spaces; a user name and password go into credentialsSecretRef"),
        validation = Rule::new("!self.startsWith('pvc://') || (self.matches('^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^ ]+$') && !self.contains('/../') && !self.endsWith('/..'))")
            .message("write pvc://claim/path, where claim is the PersistentVolumeClaim's name and path stays inside it"),
        validation = Rule::new("!self.startsWith('file:') || self.matches('^file:///[^ ]+$')")
            .message("write file:///absolute/path, with three slashes: the path is in the server's image"),
    )]
    pub uri: String,
    /// What the file must hash to, `sha256:` and 64 hexadecimal digits. Without it the first pod's
    /// digest is recorded in the revision, and every later pod is held to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    #[x_kube(
        validation = Rule::new("self.matches('^sha256:[0-9a-f]{64}$')")
            .message("write sha256: and 64 lower-case hexadecimal digits, as printed by sha256sum"),
    )]
    pub digest: Option<String>,
    /// A Secret of this namespace with the keys `token`, or `username` and `password`. It is mounted
    /// into the pods; the operator never reads it. Never sent to another origin on a redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretReference>,
    /// The name in `/v2/models/{name}`; the InferenceService's name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(
        validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')")
            .message("write letters, digits, '.', '_' and '-', beginning and ending with a letter or digit"),
    )]
    pub name: Option<String>,
    /// The version in `/v2/models/{name}/versions/{version}`; `1` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(
        validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')")
            .message("write letters, digits, '.', '_' and '-', beginning and ending with a letter or digit"),
    )]
    pub version: Option<String>,
}

/// A Secret in the InferenceService's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
