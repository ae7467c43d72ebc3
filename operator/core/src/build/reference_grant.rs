//! Lets the routes of one namespace point at the routers of another.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use ortolan_crds::names;

use super::map;
use crate::gateway::types::{
    GROUP, GrantFrom, GrantTo, GrpcMatch, HttpMatch, Matching as _, ReferenceGrant,
    ReferenceGrantSpec,
};

/// The routers' Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// One for each namespace with routes, in the routers' namespace. The routers' Service owns it: an owner reference does not
/// cross namespaces, and with the routers goes what points at them.
#[must_use]
pub fn reference_grant(router: &RouterService, namespace: &str) -> ReferenceGrant {
    let from = [HttpMatch::KIND, GrpcMatch::KIND].map(|kind| GrantFrom {
        group: GROUP.into(),
        kind: kind.into(),
        namespace: namespace.into(),
    });
    ReferenceGrant {
        metadata: ObjectMeta {
            name: Some(reference_grant_name(&router.name, namespace)),
            namespace: Some(router.namespace.clone()),
            labels: Some(labels(namespace)),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Service".into(),
                name: router.name.clone(),
                uid: router.uid.clone(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: ReferenceGrantSpec {
            from: from.into(),
            to: vec![GrantTo {
                group: String::new(),
                kind: "Service".into(),
                name: Some(router.name.clone()),
            }],
        },
    }
}

/// `ROUTER-from-NAMESPACE`, two names of at most 63 characters.
#[must_use]
pub fn reference_grant_name(router: &str, namespace: &str) -> String {
    format!("{router}-from-{namespace}")
}

fn labels(namespace: &str) -> BTreeMap<String, String> {
    map([
        (names::MANAGED_BY, names::ORTOLAN),
        (names::GRANTED, namespace),
    ])
}
