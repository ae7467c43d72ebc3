//! The part of the Gateway API that the operator writes and reads: HTTPRoute and GRPCRoute v1, and ReferenceGrant.
//!
//! Own types, for they are few: the bindings that there are hold the whole API and are no objects of `k8s_openapi`, which
//! the operator's writes and watches are made for. Fields of the standard channel only, so that every implementation knows
//! them. What others wrote beside these fields is not read.

use k8s_openapi::{Metadata, NamespaceResourceScope, Resource, apimachinery::pkg::apis::meta::v1};
use serde::{Deserialize, Serialize};
use v1::{Condition, ObjectMeta};

/// The API's group.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// The group and the version of the routes.
pub const VERSION: &str = "gateway.networking.k8s.io/v1";

/// What tells one kind of route from the other.
pub trait Matching {
    /// The route's kind.
    const KIND: &'static str;
    /// The kind in paths.
    const PLURAL: &'static str;
}

/// A route of one of the two kinds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Route<M> {
    /// Metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: RouteSpec<M>,
    /// What the Gateways say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<RouteStatus>,
}

/// `HTTPRoute`
pub type HttpRoute = Route<HttpMatch>;
/// `GRPCRoute`
pub type GrpcRoute = Route<GrpcMatch>;

impl<M: Matching> Resource for Route<M> {
    const API_VERSION: &'static str = VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = M::KIND;
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = M::PLURAL;
    type Scope = NamespaceResourceScope;
}

impl<M: Matching> Metadata for Route<M> {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What is wanted of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSpec<M> {
    /// The Gateways.
    #[serde(default)]
    pub parent_refs: Vec<ParentReference>,
    /// The hosts; all of the listeners' when empty.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Which requests go where.
    #[serde(default = "Vec::new")]
    pub rules: Vec<Rule<M>>,
}

/// A Gateway, or a listener of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// [`GROUP`] when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `Gateway` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The route's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The listener's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// The listener's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

/// Which requests go where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule<M> {
    /// Any of these.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<M>,
    /// What is changed of a request.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Where it goes.
    #[serde(default = "Vec::new")]
    pub backend_refs: Vec<BackendRef>,
}

/// By path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpMatch {
    /// The path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
}

impl Matching for HttpMatch {
    const KIND: &'static str = "HTTPRoute";
    const PLURAL: &'static str = "httproutes";
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathMatch {
    /// `PathPrefix`
    #[serde(rename = "type")]
    pub kind: String,
    /// The path.
    pub value: String,
}

/// By method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcMatch {
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<MethodMatch>,
}

impl Matching for GrpcMatch {
    const KIND: &'static str = "GRPCRoute";
    const PLURAL: &'static str = "grpcroutes";
}

/// All methods of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodMatch {
    /// `Exact`
    #[serde(rename = "type")]
    pub kind: String,
    /// The service's full name.
    #[serde(default)]
    pub service: String,
}

/// What is changed of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Which of the following.
    #[serde(rename = "type")]
    pub kind: String,
    /// `RequestHeaderModifier`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// `URLRewrite`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<UrlRewrite>,
}

/// Headers that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderModifier {
    /// In the place of what a client sent.
    #[serde(default)]
    pub set: Vec<Header>,
}

/// A header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlRewrite {
    /// The path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
}

/// Another prefix in the place of the one that matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathRewrite {
    /// `ReplacePrefixMatch`
    #[serde(rename = "type")]
    pub kind: String,
    /// The other prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_prefix_match: Option<String>,
}

/// A Service and its share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRef {
    /// The core group when absent or empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `Service` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The route's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The Service's name.
    pub name: String,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Its share, in proportion to the others'; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
}

/// What the Gateways say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// By Gateway and controller.
    #[serde(default)]
    pub parents: Vec<ParentStatus>,
}

/// What a controller says of a Gateway's part in a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// As the route has it.
    pub parent_ref: ParentReference,
    /// Who says so.
    #[serde(default)]
    pub controller_name: String,
    /// `Accepted`, `ResolvedRefs`, and the implementation's own.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Lets routes of one namespace point at a Service of another. v1beta1, which older releases of the API serve, too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReferenceGrant {
    /// Metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Who may point at what.
    pub spec: ReferenceGrantSpec,
}

impl Resource for ReferenceGrant {
    const API_VERSION: &'static str = "gateway.networking.k8s.io/v1beta1";
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "ReferenceGrant";
    const VERSION: &'static str = "v1beta1";
    const URL_PATH_SEGMENT: &'static str = "referencegrants";
    type Scope = NamespaceResourceScope;
}

impl Metadata for ReferenceGrant {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Who may point at what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReferenceGrantSpec {
    /// Who.
    pub from: Vec<GrantFrom>,
    /// At what.
    pub to: Vec<GrantTo>,
}

/// A kind of objects of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GrantFrom {
    /// Their group.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// Their namespace.
    pub namespace: String,
}

/// An object of the grant's namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GrantTo {
    /// Its group, empty for the core group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
