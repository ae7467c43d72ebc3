//! The Service in front of the revision that serves.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use ortolan_crds::names;

use super::{Owner, selector, service_labels};
use crate::revision::RevisionName;

/// Named as the InferenceService; moves to another revision by its selector.
#[must_use]
pub fn service(owner: &Owner, revision: &RevisionName) -> Service {
    Service {
        metadata: owner.meta(&owner.name, service_labels(&owner.name)),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(selector(&owner.name, revision)),
            ports: Some(vec![ServicePort {
                name: Some("http".into()),
                port: names::SERVICE_PORT,
                target_port: Some(IntOrString::String("http".into())),
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
