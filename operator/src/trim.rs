//! What is not kept of the objects that the watches bring and our writes answer: fields that nothing reads.
//!
//! Managed fields are the largest part of most objects, several times their spec in memory. They are read for one
//! question only: who owns a Deployment's replicas.

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment},
        core::v1::{ConfigMap, Container, Pod, PodSpec, Service},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry},
};
use ortolan_core::gateway::types::Route;
use ortolan_crds::{InferenceService, names};
use serde_json::json;

/// The path of a Deployment's replicas in managed fields.
const REPLICAS: &str = "/f:spec/f:replicas";

/// Drops what is never read.
pub trait Trim {
    /// Drops it in place.
    fn trim(&mut self);
}

impl Trim for InferenceService {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
    }
}

impl Trim for ControllerRevision {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
    }
}

impl Trim for Service {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
    }
}

impl<M> Trim for Route<M> {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
    }
}

impl Trim for ConfigMap {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
    }
}

impl Trim for PodDisruptionBudget {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.status = None;
    }
}

impl Trim for Deployment {
    fn trim(&mut self) {
        let managers = self.metadata.managed_fields.take().unwrap_or_default();
        let owners = managers.into_iter().filter_map(owner_of_replicas).collect();
        self.metadata.managed_fields = Some(owners);
    }
}

/// Who manages the replicas and how; of the fields only that one.
fn owner_of_replicas(entry: ManagedFieldsEntry) -> Option<ManagedFieldsEntry> {
    entry.fields_v1.as_ref()?.0.pointer(REPLICAS)?;
    Some(ManagedFieldsEntry {
        manager: entry.manager,
        operation: entry.operation,
        fields_v1: Some(FieldsV1(json!({"f:spec": {"f:replicas": {}}}))),
        ..ManagedFieldsEntry::default()
    })
}

/// Of a pod's spec only the server's resources and the volumes are read, to explain failures.
impl Trim for Pod {
    fn trim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        self.spec = self.spec.take().map(|spec| PodSpec {
            containers: spec
                .containers
                .into_iter()
                .filter_map(trim_container)
                .collect(),
            volumes: spec.volumes.map(|mut volumes| {
                volumes.retain(|v| v.secret.is_some() || v.persistent_volume_claim.is_some());
                volumes
            }),
            ..PodSpec::default()
        });
    }
}

fn trim_container(container: Container) -> Option<Container> {
    (container.name == names::CONTAINER).then(|| Container {
        name: container.name,
        resources: container.resources,
        ..Container::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_deployments_managed_fields_only_the_owners_of_its_replicas_are_kept() {
        let mut deployment: Deployment = serde_json::from_value(json!({"metadata": {"managedFields": [
            {"manager": "ortolan/service", "operation": "Apply",
             "fieldsV1": {"f:spec": {"f:template": {"f:spec": {}}}}},
            {"manager": "ortolan/autoscaler", "operation": "Apply", "time": "2026-01-01T00:00:00Z",
             "fieldsV1": {"f:spec": {"f:replicas": {}, "f:paused": {}}}},
            {"manager": "kubectl", "operation": "Update", "subresource": "scale",
             "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "nobody", "operation": "Update"},
        ]}}))
        .expect("a Deployment");
        deployment.trim();
        let kept = serde_json::to_value(&deployment.metadata.managed_fields).expect("JSON");
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        assert_eq!(
            kept,
            json!([
                {"manager": "ortolan/autoscaler", "operation": "Apply", "fieldsV1": replicas},
                {"manager": "kubectl", "operation": "Update", "fieldsV1": replicas},
            ])
        );
        deployment.trim();
        let again = serde_json::to_value(&deployment.metadata.managed_fields).expect("JSON");
        assert_eq!(again, kept, "trimmed twice it is the same");
    }
}
