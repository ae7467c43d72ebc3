//! The API of Ortolan: the types that users write, what is reported back, and the names that the
//! operator, the chart and the tests share.
//!
//! ```text
//!   InferenceService ─ spec ─ model · server · pod   → the template of a revision (revision identity)
//!                    │      └ scaling · rollout · routing · suspend → change nothing that runs in a pod
//!                    └ status ─ conditions · traffic · revisions
//! ```
//!
//! Two rules hold everywhere here: a field is in the API only when it works, and no field under
//! `model`, `server` or `pod` has a schema default, for a new default would change stored objects
//! without a new generation (the operator writes its defaults into the revision instead).

mod duration;
mod gateway;
mod model;
pub mod names;
mod pipeline;
mod pod;
mod reference;
mod rollout;
mod rollout_status;
mod routing;
mod schema;
mod server;
mod service;
mod shadow;
mod status;

pub use duration::{parse_duration, parse_latency};
pub use gateway::{Gateway, GatewayProtocol, ParentRef, RoutingProvider};
pub use model::{Model, SecretReference};
pub use pipeline::{
    Channels, Column, InputKind, Layout, Missing, OutputKind, Overflow, Pipeline, PipelineInput,
    PipelineOutput, Pooling, Resize,
};
pub use pod::Pod;
pub use reference::reference;
pub use rollout::{Analysis, Approval, OnInconclusive, Rollout, Step, Strategy, Validation};
pub use rollout_status::{
    CountStatus, DriftStatus, MovedStatus, RolloutEvidence, RolloutPhase, RolloutStatus,
    SignalStatus,
};
pub use routing::{
    Balancing, BalancingKind, RevisionHeader, Routing, Session, SessionKey, WrongRouting,
};
pub use server::{Accelerator, Batching, Fallback, Provider, Resources, Server, Sessions, Warmup};
pub use service::{InferenceService, InferenceServiceSpec, Scaler, Scaling};
pub use shadow::{Compare, CompareKind, ComparedStatus, Shadow, ShadowStatus};
pub use status::{
    Addresses, ColdStart, InferenceServiceStatus, LastFailure, ModelStatus, ProviderStatus,
    RevisionPhase, RevisionStatus, TensorStatus, Traffic,
};

/// The CustomResourceDefinitions of this release, in the order in which they are applied.
#[must_use]
pub fn all()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>
{
    vec![schema::finish(
        <InferenceService as kube::CustomResourceExt>::crd(),
    )]
}

/// The same as YAML, as it is committed (a test holds it to the types): who only prints it needs none of the
/// code that makes schemas.
pub const YAML: &str = include_str!("../inferenceservices.yaml");

/// A document as YAML, ending in a newline, without a `---`.
///
/// # Errors
/// When the value cannot be written as YAML, which no value of this crate does.
pub fn to_yaml(value: &impl serde::Serialize) -> Result<String, serde_saphyr::ser_error::Error> {
    serde_saphyr::to_string(value)
}
