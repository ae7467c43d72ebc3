//! kstatus for custom resources, as Flux and Argo CD apply it: what a GitOps tool makes of an object
//! that it knows nothing of but the conventions.
//! <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>

use serde::Serialize;

/// What the tool shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kstatus {
    /// Healthy: the object is what its spec says.
    Current,
    /// On its way there.
    InProgress,
    /// It will not get there without help.
    Failed,
    /// On its way out.
    Terminating,
}

/// The rules, in kstatus's order.
#[must_use]
pub fn kstatus(object: &impl Serialize) -> Kstatus {
    let object = serde_json::to_value(object).expect("a Kubernetes object is JSON");
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return Kstatus::Terminating;
    }
    let observed = object.pointer("/status/observedGeneration");
    if observed.is_some_and(|observed| Some(observed) != object.pointer("/metadata/generation")) {
        return Kstatus::InProgress;
    }
    let status_of = |kind: &str| {
        let conditions = object.pointer("/status/conditions")?.as_array()?;
        let found = conditions.iter().find(|c| c["type"] == kind)?;
        found["status"].as_str()
    };
    if status_of("Reconciling") == Some("True") {
        return Kstatus::InProgress;
    }
    if status_of("Stalled") == Some("True") {
        return Kstatus::Failed;
    }
    match status_of("Ready") {
        None | Some("True") => Kstatus::Current,
        Some(_) => Kstatus::InProgress,
    }
}
