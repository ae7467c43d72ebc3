//! The Gateway API: what the Gateways say of the routes, as values.
//!
//! Inputs: the routes as they live, with the words of their Gateways. Outputs: a [`Verdict`] for each route, and from all of
//! them the condition `Routed` and whether a change of weights has arrived. Invariant: words about an older generation of a
//! route count for nothing.
//!
//! `Accepted` says that a controller has read a route, not that its data plane has it (seen: up to 1 s later, and changes
//! throttled to one in 2 s): so only a route that has been accepted for [`MARGIN`] counts as followed.

pub mod types;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use types::{Matching, ParentReference, ParentStatus, Route};

use self::types::{GROUP, GrpcRoute, HttpRoute};

/// From `Accepted` to the data plane.
pub const MARGIN: Duration = Duration::from_secs(3);
/// A Service that was just made has no EndpointSlices yet: no route names it before.
pub const SEASONED: Duration = Duration::from_secs(5);
/// How often it is looked for an API that is absent.
pub const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Whether the API server knows a kind of routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Not looked at yet, or not listed yet.
    #[default]
    Unknown,
    /// It does not.
    Absent,
    /// It does, and all routes of ours are known.
    Present,
}

/// What is observed of a service's routes.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Whether there are HTTPRoutes.
    pub http_api: Presence,
    /// Whether there are GRPCRoutes.
    pub grpc_api: Presence,
    /// HTTPRoutes with our labels.
    pub http: Vec<HttpRoute>,
    /// GRPCRoutes with our labels.
    pub grpc: Vec<GrpcRoute>,
    /// For how long every route has been settled just as it is; `None` when one is not.
    pub settled: Option<Duration>,
}

/// What the Gateways say of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every one has taken it as it is.
    Accepted,
    /// This one has not looked at it yet.
    Pending {
        /// The Gateway.
        gateway: String,
    },
    /// This one has something against it.
    Refused {
        /// The Gateway.
        gateway: String,
        /// `Accepted` or `ResolvedRefs`.
        condition: &'static str,
        /// Its reason, in its words.
        reason: String,
        /// Its message, in its words.
        message: String,
    },
}

/// What the Gateways say of a route: the first refusal, or the first that is not done, or that all have taken it.
#[must_use]
pub fn verdict<M: Matching>(route: &Route<M>) -> Verdict {
    let statuses = route.status.as_ref().map(|status| &*status.parents);
    let of = |parent: &ParentReference| {
        let statuses = statuses.unwrap_or_default().iter();
        let about = statuses.filter(|status| same(parent, &status.parent_ref, &route.metadata));
        let said: Vec<Verdict> = about
            .map(|status| of_parent(parent, status, &route.metadata))
            .collect();
        let is = |wanted: fn(&Verdict) -> bool| said.iter().find(|said| wanted(said)).cloned();
        // Words of a controller that had the Gateway before stay at their old generation.
        is(|said| matches!(said, Verdict::Refused { .. }))
            .or_else(|| is(|said| *said == Verdict::Accepted))
            .unwrap_or_else(|| pending(parent, &route.metadata))
    };
    let all: Vec<Verdict> = route.spec.parent_refs.iter().map(of).collect();
    let refused = all
        .iter()
        .find(|said| matches!(said, Verdict::Refused { .. }));
    let open = all.iter().find(|said| **said != Verdict::Accepted);
    refused.or(open).cloned().unwrap_or(Verdict::Accepted)
}

fn pending(parent: &ParentReference, route: &ObjectMeta) -> Verdict {
    Verdict::Pending {
        gateway: gateway_name(parent, route),
    }
}

fn of_parent(parent: &ParentReference, status: &ParentStatus, route: &ObjectMeta) -> Verdict {
    for condition in ["Accepted", "ResolvedRefs"] {
        match current(&status.conditions, condition, route.generation) {
            None => return pending(parent, route),
            Some(said) if said.status == "True" => {}
            Some(said) if said.status == "False" => {
                return Verdict::Refused {
                    gateway: gateway_name(parent, route),
                    condition,
                    reason: said.reason.clone(),
                    message: said.message.clone(),
                };
            }
            Some(_) => return pending(parent, route),
        }
    }
    Verdict::Accepted
}

fn current<'a>(
    conditions: &'a [Condition],
    kind: &str,
    generation: Option<i64>,
) -> Option<&'a Condition> {
    conditions
        .iter()
        .find(|c| c.type_ == kind && c.observed_generation == generation)
}

/// `namespace/name`, and the listener where one is named.
fn gateway_name(parent: &ParentReference, route: &ObjectMeta) -> String {
    let own = route.namespace.as_deref().unwrap_or_default();
    let namespace = parent.namespace.as_deref().unwrap_or(own);
    let listener = match (&parent.section_name, parent.port) {
        (Some(section), _) => format!(" (listener {section})"),
        (None, Some(port)) => format!(" (port {port})"),
        (None, None) => String::new(),
    };
    format!("{namespace}/{}{listener}", parent.name)
}

/// Whether a status is about this Gateway: a controller may write the defaults out, or leave them.
fn same(wanted: &ParentReference, said: &ParentReference, route: &ObjectMeta) -> bool {
    fn full<'a>(
        parent: &'a ParentReference,
        own: &'a str,
    ) -> (
        &'a str,
        &'a str,
        &'a str,
        &'a str,
        Option<&'a str>,
        Option<i32>,
    ) {
        (
            parent.group.as_deref().unwrap_or(GROUP),
            parent.kind.as_deref().unwrap_or("Gateway"),
            parent.namespace.as_deref().unwrap_or(own),
            &parent.name,
            parent.section_name.as_deref(),
            parent.port,
        )
    }
    let own = route.namespace.as_deref().unwrap_or_default();
    full(wanted, own) == full(said, own)
}

/// Whether no request can be on its way by other weights than these for long: every Gateway has taken the route, or will
/// not have it at all. A GRPCRoute is refused where a listener takes only one route for a host; then nothing goes by it.
#[must_use]
pub fn is_settled(verdict: &Verdict, is_grpc: bool) -> bool {
    match verdict {
        Verdict::Accepted => true,
        Verdict::Refused { condition, .. } => is_grpc && *condition == "Accepted",
        Verdict::Pending { .. } => false,
    }
}

impl Routes {
    /// What tells these routes, settled as they are, from any others; `None` when one is not settled.
    #[must_use]
    pub fn fingerprint(&self) -> Option<String> {
        let http = self
            .http
            .iter()
            .map(|r| (&r.metadata, is_settled(&verdict(r), false)));
        let grpc = self
            .grpc
            .iter()
            .map(|r| (&r.metadata, is_settled(&verdict(r), true)));
        let mut text = String::new();
        for (meta, settled) in http.chain(grpc) {
            if !settled {
                return None;
            }
            let uid = meta.uid.as_deref().unwrap_or_default();
            text += &format!("{uid}@{} ", meta.generation.unwrap_or_default());
        }
        Some(text)
    }

    /// Whether they have been settled long enough for the data plane to have them.
    #[must_use]
    pub fn are_followed(&self) -> bool {
        self.settled.is_some_and(|since| since >= MARGIN)
    }
}

#[cfg(test)]
mod tests;
