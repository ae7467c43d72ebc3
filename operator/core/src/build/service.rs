//! The Services: the one that clients talk to, and behind routers or Gateways one for each revision.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use ortolan_crds::names;

use super::{Owner, revision_labels, selector, service_labels};
use crate::revision::{RevisionName, hash8};

/// Where the requests of a service go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front<'a> {
    /// To the pods of one revision.
    Pods(&'a RevisionName),
    /// To the routers, under their Service's full name, `router.ortolan-system.svc.cluster.local`: of a shorter one the
    /// alias does not resolve. They choose the revision by the status.
    Router(&'a str),
}

/// Named as the InferenceService. Before pods it moves to another revision by its selector; before routers it is an alias
/// of their Service, with no endpoints of its own to be written anew at each of their restarts.
#[must_use]
pub fn service(owner: &Owner, front: Front<'_>) -> Service {
    let kind = match front {
        Front::Pods(revision) => ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(selector(&owner.name, revision)),
            ports: Some(vec![port(Some(IntOrString::String("http".into())))]),
            ..ServiceSpec::default()
        },
        Front::Router(name) => ServiceSpec {
            type_: Some("ExternalName".into()),
            external_name: Some(name.to_owned()),
            ports: Some(vec![port(None)]),
            ..ServiceSpec::default()
        },
    };
    Service {
        metadata: owner.meta(&owner.name, service_labels(&owner.name)),
        spec: Some(kind),
        status: None,
    }
}

/// Named as the revision: makes EndpointSlices for the routers, and has no address. Pods that are not ready stand in
/// them, too, so that a router need not wait for a probe of the kubelet's.
#[must_use]
pub fn revision_service(owner: &Owner, revision: &RevisionName) -> Service {
    Service {
        metadata: owner.meta(revision.as_str(), revision_labels(&owner.name, revision)),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(selector(&owner.name, revision)),
            ports: Some(vec![port(Some(IntOrString::String("http".into())))]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Of one revision, for Gateways: with an address, and with ready pods only, so that every implementation can use it. Not
/// the one that routers have, which has neither: an address can be given to no Service that lives, and both are there
/// while a service changes from one to the other.
#[must_use]
pub fn backend_service(owner: &Owner, revision: &RevisionName) -> Service {
    let mut labels = service_labels(&owner.name);
    labels.insert(names::BACKEND.into(), revision.as_str().into());
    Service {
        metadata: owner.meta(&backend_service_name(revision), labels),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(selector(&owner.name, revision)),
            ports: Some(vec![port(Some(IntOrString::String("http".into())))]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The revision's name and `-gw`. A Service's name ends at 63 characters: where a longest name meets a collision of
/// revisions, a hash stands for the end of it.
#[must_use]
pub fn backend_service_name(revision: &RevisionName) -> String {
    const LONGEST: usize = 63;
    let name = revision.as_str();
    let full = format!("{name}-gw");
    if full.len() <= LONGEST {
        return full;
    }
    let hash = hash8(&name.into());
    let head = &name[..name.floor_char_boundary(LONGEST - hash.len() - 4)];
    format!("{head}-{hash}-gw")
}

fn port(target_port: Option<IntOrString>) -> ServicePort {
    ServicePort {
        name: Some("http".into()),
        port: names::SERVICE_PORT,
        target_port,
        protocol: Some("TCP".into()),
        ..ServicePort::default()
    }
}
