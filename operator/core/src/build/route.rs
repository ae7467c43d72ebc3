//! The routes: which requests a Gateway lets in, and where they go. Fields of the standard channel only.

use std::collections::BTreeMap;

use ortolan_crds::{Gateway, GatewayProtocol, names};

use super::{Owner, service_labels};
use crate::gateway::types::{
    BackendRef, Filter, GROUP, GrpcMatch, GrpcRoute, Header, HeaderModifier, HttpMatch, HttpRoute,
    MethodMatch, ParentReference, PathMatch, PathRewrite, Route, RouteSpec, Rule, UrlRewrite,
};

/// The header by which routers know the service, whatever the host is. A client's own is overwritten.
const SERVICE_HEADER: &str = "x-ortolan-service";
/// What a server answers over gRPC.
const GRPC_SERVICES: [&str; 4] = [
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Where the requests of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backends {
    /// To the routers' Service, in its namespace. They are told the service by a header.
    Router {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
    },
    /// To the InferenceService's own Service.
    Own,
    /// To these Services, with weights.
    Weighted {
        /// Each Service's share in per cent.
        shares: BTreeMap<String, u8>,
        /// Which change of the traffic this is.
        generation: i64,
    },
}

/// The HTTPRoute of an InferenceService, named as it.
#[must_use]
pub fn http_route(owner: &Owner, gateway: &Gateway, backends: &Backends) -> HttpRoute {
    let path = PathMatch {
        kind: "PathPrefix".into(),
        value: gateway.prefix().unwrap_or("/").into(),
    };
    let rewrite = gateway.prefix().map(|_| Filter {
        kind: "URLRewrite".into(),
        url_rewrite: Some(UrlRewrite {
            path: Some(PathRewrite {
                kind: "ReplacePrefixMatch".into(),
                replace_prefix_match: Some("/".into()),
            }),
        }),
        ..Filter::default()
    });
    let matches = vec![HttpMatch { path: Some(path) }];
    let mut route = route(owner, gateway, GatewayProtocol::HTTP, matches, backends);
    let rule = route.spec.rules.iter_mut();
    rule.for_each(|rule| rule.filters.extend(rewrite.clone()));
    route
}

/// The GRPCRoute of an InferenceService. Its name comes after the HTTPRoute's in the alphabet: where a listener takes only
/// one of two routes with the same host, that is the one of HTTP, which carries gRPC in a pinch.
#[must_use]
pub fn grpc_route(owner: &Owner, gateway: &Gateway, backends: &Backends) -> GrpcRoute {
    let matches = GRPC_SERVICES.map(|service| GrpcMatch {
        method: Some(MethodMatch {
            kind: "Exact".into(),
            service: service.into(),
        }),
    });
    route(
        owner,
        gateway,
        GatewayProtocol::GRPC,
        matches.into(),
        backends,
    )
}

/// The name of the GRPCRoute.
#[must_use]
pub fn grpc_route_name(service: &str) -> String {
    format!("{service}-grpc")
}

fn route<M>(
    owner: &Owner,
    gateway: &Gateway,
    protocol: GatewayProtocol,
    matches: Vec<M>,
    backends: &Backends,
) -> Route<M> {
    let name = match protocol {
        GatewayProtocol::HTTP => owner.name.clone(),
        GatewayProtocol::GRPC => grpc_route_name(&owner.name),
    };
    let mut metadata = owner.meta(&name, service_labels(&owner.name));
    if let Backends::Weighted { generation, .. } = backends {
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(names::TRAFFIC.into(), generation.to_string());
    }
    let rule = Rule {
        matches,
        filters: header(owner, backends).into_iter().collect(),
        backend_refs: backend_refs(owner, backends),
    };
    Route {
        metadata,
        spec: RouteSpec {
            parent_refs: parents(gateway),
            hostnames: gateway.hosts(protocol).to_vec(),
            rules: vec![rule],
        },
        status: None,
    }
}

/// The Gateways as a route names them, the API's defaults written out.
#[must_use]
pub fn parents(gateway: &Gateway) -> Vec<ParentReference> {
    let parent = |parent: &ortolan_crds::ParentRef| ParentReference {
        group: Some(GROUP.into()),
        kind: Some("Gateway".into()),
        namespace: parent.namespace.clone(),
        name: parent.name.clone(),
        section_name: parent.section_name.clone(),
        port: parent.port,
    };
    gateway.parent_refs.iter().map(parent).collect()
}

fn header(owner: &Owner, backends: &Backends) -> Option<Filter> {
    let is_routers = matches!(backends, Backends::Router { .. });
    is_routers.then(|| Filter {
        kind: "RequestHeaderModifier".into(),
        request_header_modifier: Some(HeaderModifier {
            set: vec![Header {
                name: SERVICE_HEADER.into(),
                value: format!("{}/{}", owner.namespace, owner.name),
            }],
        }),
        ..Filter::default()
    })
}

fn backend_refs(owner: &Owner, backends: &Backends) -> Vec<BackendRef> {
    let to = |namespace: Option<&str>, name: &str, weight: u8| BackendRef {
        group: Some(String::new()),
        kind: Some("Service".into()),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        port: Some(names::SERVICE_PORT),
        weight: Some(i32::from(weight)),
    };
    match backends {
        Backends::Router { namespace, name } => {
            let across = (*namespace != owner.namespace).then_some(namespace.as_str());
            vec![to(across, name, 1)]
        }
        Backends::Own => vec![to(None, &owner.name, 1)],
        Backends::Weighted { shares, .. } => shares
            .iter()
            .map(|(name, weight)| to(None, name, *weight))
            .collect(),
    }
}
