//! `spec.routing.gateway`: how requests come in from outside, by the Gateway API.
//!
//! The operator renders an HTTPRoute and a GRPCRoute of it. Names of fields are those of the Gateway API.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Who sends the requests to the revisions.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum RoutingProvider {
    /// The routers, where the platform has them.
    #[default]
    Router,
    /// The Gateways that `gateway` names: the operator writes a weight for each revision into the routes. Nobody counts
    /// requests there, so that shares are set by hand (`rollout.weight`) or change all at once (`BlueGreen`, `Recreate`).
    GatewayAPI,
}

/// What is routed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum GatewayProtocol {
    /// An HTTPRoute.
    HTTP,
    /// A GRPCRoute.
    GRPC,
}

/// Gateways that let requests in, and for which hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.pathPrefix) || self.pathPrefix == '/' || !has(self.protocols) || !('GRPC' in self.protocols)")
        .message("a GRPCRoute can neither match nor cut off a path prefix, and gRPC's clients cannot send one: leave GRPC out of protocols, or pathPrefix"),
    validation = Rule::new("!has(self.grpcHostnames) || !has(self.protocols) || 'GRPC' in self.protocols")
        .message("grpcHostnames are those of the GRPCRoute: write protocols: [HTTP, GRPC], or leave grpcHostnames out"),
    validation = Rule::new("!has(self.grpcHostnames) || !has(self.pathPrefix) || self.pathPrefix == '/'")
        .message("with a pathPrefix there is no GRPCRoute, which can neither match nor cut off one: leave grpcHostnames out, or pathPrefix"),
)]
pub struct Gateway {
    /// The Gateways, or listeners of them.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub parent_refs: Vec<ParentRef>,
    /// Requests to these hosts; to all hosts of the listeners when absent. `*.example.com` stands for each host under
    /// `example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(
        validation = Rule::new(HOSTS)
            .message("write names of hosts in lower case and without a port, such as models.example.com or *.example.com"),
    )]
    pub hostnames: Vec<String>,
    /// Requests whose path begins so; the server gets the path without it. All paths when absent. gRPC has no such
    /// paths: with a prefix no GRPCRoute is made, and gRPC reaches the service only inside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    #[x_kube(
        validation = Rule::new(PREFIX)
            .message("write a path such as /models/cats: it begins with '/', does not end with one, and has only letters, digits, '-', '_', '.', '~' and '/' in it"),
    )]
    pub path_prefix: Option<String>,
    /// Which routes are made: both when absent, and only that of HTTP with a `pathPrefix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub protocols: Option<Vec<GatewayProtocol>>,
    /// Hosts of the GRPCRoute, where they are others than `hostnames`. The Gateway API lets an implementation refuse the
    /// younger of an HTTPRoute and a GRPCRoute with the same host at one listener: with a host of its own gRPC passes
    /// everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(
        validation = Rule::new(HOSTS)
            .message("write names of hosts in lower case and without a port, such as grpc.example.com or *.grpc.example.com"),
    )]
    pub grpc_hostnames: Option<Vec<String>>,
}

/// The rule of names of hosts, as the Gateway API has it.
const HOSTS: &str = "self.all(host, host.matches('^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$') && !host.matches('^[0-9.]+$'))";
/// What both the Gateway API and each of its implementations take for a path.
const PREFIX: &str =
    "self == '/' || self.matches('^(/[A-Za-z0-9_~.-]+)+$') && !self.matches('(^|/)[.][.]?(/|$)')";

/// A Gateway, or a listener of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// The Gateway's name.
    #[schemars(length(max = 253))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')")
            .message("write the name of a Gateway"),
    )]
    pub name: String,
    /// Its namespace; the InferenceService's when absent. The Gateway's listeners say from which namespaces they take
    /// routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
            .message("write the name of a namespace"),
    )]
    pub namespace: Option<String>,
    /// The listener's name; all listeners when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')")
            .message("write the name of a listener of the Gateway"),
    )]
    pub section_name: Option<String>,
    /// The listener's port; all listeners when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 1 && self <= 65535")
            .message("write a port from 1 to 65535"),
    )]
    pub port: Option<i32>,
}

impl Gateway {
    /// The prefix of the paths, if it is one that all paths do not have.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.path_prefix.as_deref().filter(|prefix| *prefix != "/")
    }

    /// Whether such a route is made.
    #[must_use]
    pub fn routes(&self, protocol: GatewayProtocol) -> bool {
        let asked = self.protocols.as_ref();
        let asked = asked.is_none_or(|protocols| protocols.contains(&protocol));
        asked && (protocol == GatewayProtocol::HTTP || self.prefix().is_none())
    }

    /// The hosts of such a route; all of the listeners' when empty.
    #[must_use]
    pub fn hosts(&self, protocol: GatewayProtocol) -> &[String] {
        match (protocol, &self.grpc_hostnames) {
            (GatewayProtocol::GRPC, Some(own)) => own,
            _ => &self.hostnames,
        }
    }

    /// The first host of such a route that a client can write.
    #[must_use]
    pub fn host(&self, protocol: GatewayProtocol) -> Option<&str> {
        let mut hosts = self.hosts(protocol).iter();
        hosts
            .find(|host| !host.starts_with("*."))
            .map(String::as_str)
    }
}
