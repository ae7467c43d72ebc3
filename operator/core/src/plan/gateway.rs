//! Routes of the Gateway API: which are written, what their Gateways say of them, and when a change of weights has arrived.
//!
//! Invariants: a route names no Service that has no endpoints only because it is new; a Service that routes named goes only
//! when its Gateways have had the route without it for a while.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{Metadata, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use ortolan_crds::{Gateway, GatewayProtocol, names};
use serde::Serialize;

use super::{
    Kind, Object, Planner,
    objects::{Need, delete, need_in_order, seal},
};
use crate::{
    build::{self, Backends},
    gateway::{
        self, LOOK_AGAIN, Presence, SEASONED, Verdict,
        types::{GrpcMatch, HttpMatch, Matching, Route},
    },
    notice::Notice,
    observed::{find, label},
    revision::RevisionName,
    rollout::{State, spec::Splitter},
    step::{Decision, Outside},
};

/// Before it is looked again at what only takes a moment.
const SOON: Duration = Duration::from_secs(1);
/// Between two looks at whether a Service may go.
const LEFT_OVER: Duration = Duration::from_secs(5);
/// The reason of a route that needs nothing but a moment.
const PENDING: &str = "RoutePending";

/// How far the route of one protocol is.
struct Step {
    kind: &'static str,
    name: String,
    is_grpc: bool,
    state: Far,
}

enum Far {
    Absent,
    Unknown,
    /// The Services that it would point at are new.
    Waits,
    /// It differs from what is wanted; written now.
    Written,
    Judged(Verdict),
}

impl Planner<'_> {
    fn gateway(&self) -> Option<&Gateway> {
        let routing = self.observed.service.spec.routing.as_ref()?;
        routing.gateway.as_ref()
    }

    /// The revision's Service that routes with weights point at.
    pub(super) fn back_gateways(&mut self, name: &RevisionName) {
        let service = build::backend_service(&self.owner, name);
        self.apply_service(service, &build::backend_service_name(name));
    }

    /// Writes the routes, or removes those that are not wanted. Answers what the status tells of them.
    pub(super) fn route(&mut self, decision: &mut Decision) {
        let Some(gateway) = self.gateway().cloned() else {
            return self.remove_routes(|_| true);
        };
        let protocols = [GatewayProtocol::HTTP, GatewayProtocol::GRPC];
        self.remove_routes(|protocol| !gateway.routes(protocol));
        let backends = self.backends(decision);
        let wanted = protocols
            .into_iter()
            .filter(|protocol| gateway.routes(*protocol));
        let steps: Vec<Step> = wanted
            .map(|protocol| match protocol {
                GatewayProtocol::HTTP => self.http_route(&gateway, backends.as_ref()),
                GatewayProtocol::GRPC => self.grpc_route(&gateway, backends.as_ref()),
            })
            .collect();
        let outside = tell(&gateway, &steps);
        let again = steps.iter().filter_map(|step| match &step.state {
            Far::Absent => Some(LOOK_AGAIN),
            Far::Unknown => Some(SOON),
            Far::Waits => backends.as_ref().err().copied(),
            Far::Written | Far::Judged(_) => None,
        });
        decision.requeue = again.chain(decision.requeue).min();
        self.announce(&outside);
        decision.outside = Some(outside);
    }

    fn http_route(&mut self, gateway: &Gateway, backends: Result<&Backends, &Duration>) -> Step {
        let observed = self.observed;
        let route = backends.map(|backends| build::http_route(&self.owner, gateway, backends));
        let live = find(&observed.routes.http, |r| &r.metadata, observed.name());
        let state = self.far(observed.routes.http_api, route.ok(), live, |route| {
            Object::HttpRoute(Box::new(route))
        });
        Step {
            kind: HttpMatch::KIND,
            name: observed.name().to_owned(),
            is_grpc: false,
            state,
        }
    }

    fn grpc_route(&mut self, gateway: &Gateway, backends: Result<&Backends, &Duration>) -> Step {
        let observed = self.observed;
        let route = backends.map(|backends| build::grpc_route(&self.owner, gateway, backends));
        let name = build::grpc_route_name(observed.name());
        let live = find(&observed.routes.grpc, |r| &r.metadata, &name);
        let state = self.far(observed.routes.grpc_api, route.ok(), live, |route| {
            Object::GrpcRoute(Box::new(route))
        });
        Step {
            kind: GrpcMatch::KIND,
            name,
            is_grpc: true,
            state,
        }
    }

    fn far<M: Matching + Serialize>(
        &mut self,
        api: Presence,
        route: Option<Route<M>>,
        live: Option<&Route<M>>,
        object: fn(Route<M>) -> Object,
    ) -> Far {
        match (api, route) {
            (Presence::Absent, _) => Far::Absent,
            (Presence::Unknown, _) => Far::Unknown,
            (Presence::Present, None) => Far::Waits,
            (Presence::Present, Some(mut route)) => {
                let desired = seal(&mut route, Metadata::metadata_mut);
                let name = route.metadata.name.clone().unwrap_or_default();
                let need = need_in_order(&desired, live);
                match (&need, live) {
                    (Need::Nothing, Some(live)) => Far::Judged(gateway::verdict(live)),
                    _ => {
                        self.apply(need, M::KIND, &name, object(route));
                        Far::Written
                    }
                }
            }
        }
    }

    /// Where requests that come through Gateways go; the error says when to look again.
    fn backends(&self, decision: &Decision) -> Result<Backends, Duration> {
        match (self.splitter, self.router) {
            (Splitter::Gateways, _) => self.weighted(decision),
            (_, Some(router)) => {
                let mut labels = router.splitn(3, '.').map(str::to_owned);
                let name = labels.next().unwrap_or_default();
                let namespace = labels.next().unwrap_or_default();
                Ok(Backends::Router { namespace, name })
            }
            (_, None) => Ok(Backends::Own),
        }
    }

    /// All revisions with pods, those without a share with a weight of 0: their Gateways know them before they get one.
    fn weighted(&self, decision: &Decision) -> Result<Backends, Duration> {
        let run = decision.run.iter().filter(|(_, pods)| **pods > 0);
        let mut shares: BTreeMap<String, u8> = run
            .map(|(name, _)| (build::backend_service_name(name), 0))
            .collect();
        for share in &decision.traffic {
            shares.insert(build::backend_service_name(&share.revision), share.weight);
        }
        let new = shares.iter().filter(|(_, weight)| **weight > 0);
        if let Some(wait) = new.filter_map(|(name, _)| self.unseasoned(name)).max() {
            return Err(wait);
        }
        let generation = decision.rollout.as_ref().and_then(|r| r.generation);
        Ok(Backends::Weighted {
            shares,
            generation: generation.unwrap_or_default(),
        })
    }

    /// How long until a Service has had the time to get endpoints; `None` when it has.
    fn unseasoned(&self, name: &str) -> Option<Duration> {
        let service = find(&self.observed.services, |s| &s.metadata, name);
        let created = service.and_then(|service| service.metadata.creation_timestamp.as_ref());
        let Some(created) = created else {
            return Some(SEASONED);
        };
        let age = Duration::try_from(self.now.duration_since(created.0)).unwrap_or_default();
        SEASONED.checked_sub(age).filter(|left| !left.is_zero())
    }

    fn remove_routes(&mut self, unwanted: impl Fn(GatewayProtocol) -> bool) {
        let observed = self.observed;
        let mut go = |kind, meta: &ObjectMeta| {
            if observed.owns(meta) {
                self.writes.push(delete(kind, meta));
            }
        };
        if unwanted(GatewayProtocol::HTTP) {
            let routes = observed.routes.http.iter();
            routes.for_each(|route| go(Kind::HttpRoute, &route.metadata));
        }
        if unwanted(GatewayProtocol::GRPC) {
            let routes = observed.routes.grpc.iter();
            routes.for_each(|route| go(Kind::GrpcRoute, &route.metadata));
        }
    }

    /// Removes Services of revisions that routes need no longer.
    pub(super) fn remove_backends(&mut self, decision: &mut Decision) {
        let observed = self.observed;
        let named: Vec<&str> = {
            let http = observed.routes.http.iter().flat_map(|r| &r.spec.rules);
            let grpc = observed.routes.grpc.iter().flat_map(|r| &r.spec.rules);
            let http = http.flat_map(|rule| &rule.backend_refs);
            let grpc = grpc.flat_map(|rule| &rule.backend_refs);
            http.chain(grpc).map(|to| to.name.as_str()).collect()
        };
        let routes = &observed.routes;
        let is_known = |api| api != Presence::Unknown;
        let none = routes.http.is_empty() && routes.grpc.is_empty();
        let settled = is_known(routes.http_api)
            && is_known(routes.grpc_api)
            && (none || routes.are_followed());
        for service in &observed.services {
            let meta = &service.metadata;
            let Some(revision) = label(meta, names::BACKEND) else {
                continue;
            };
            let runs = decision.run.contains_key(&RevisionName::new(revision));
            if !observed.owns(meta) || runs && self.splitter == Splitter::Gateways {
                continue;
            }
            let name = meta.name.as_deref().unwrap_or_default();
            if settled && !named.contains(&name) {
                self.writes.push(delete(Kind::Service, meta));
            } else {
                let again = decision.requeue.into_iter().chain([LEFT_OVER]);
                decision.requeue = again.min();
            }
        }
    }

    /// The generation of the traffic that the Gateways have, if every route has it.
    pub(super) fn followed_by_gateways(&self, state: Option<&State>) -> Option<u64> {
        let (state, gateway) = (state?, self.gateway()?);
        let routes = &self.observed.routes;
        let wanted = |protocol, api| gateway.routes(protocol) && api != Presence::Absent;
        let http = wanted(GatewayProtocol::HTTP, routes.http_api);
        let grpc = wanted(GatewayProtocol::GRPC, routes.grpc_api);
        let name = self.observed.name();
        let has_http = || {
            let live = find(&routes.http, |r| &r.metadata, name);
            live.is_some_and(|live| self.says(live, state))
        };
        let has_grpc = || {
            let live = find(&routes.grpc, |r| &r.metadata, &build::grpc_route_name(name));
            live.is_some_and(|live| self.says(live, state))
        };
        let all = (http || grpc) && (!http || has_http()) && (!grpc || has_grpc());
        (all && routes.are_followed()).then_some(state.generation)
    }

    fn says<M>(&self, route: &Route<M>, state: &State) -> bool {
        let annotations = route.metadata.annotations.as_ref();
        let generation = annotations.and_then(|all| all.get(names::TRAFFIC));
        let refs = route.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
        let said: BTreeMap<String, i32> = refs
            .map(|to| (to.name.clone(), to.weight.unwrap_or(1)))
            .filter(|(_, weight)| *weight > 0)
            .collect();
        let wanted = state.traffic.iter().map(|(name, weight)| {
            let name = build::backend_service_name(name);
            (name, i32::from(weight.percent()))
        });
        self.observed.owns(&route.metadata)
            && generation.is_some_and(|generation| *generation == state.generation.to_string())
            && said == wanted.collect()
    }

    /// An event when the condition says something new.
    fn announce(&mut self, outside: &Outside) {
        let status = self.observed.service.status.as_ref();
        let mut before = status.iter().flat_map(|status| &status.conditions);
        let before = before.find(|c| c.type_ == "Routed");
        let was = before.map(|c| (c.status == "True", c.reason.as_str()));
        if was == Some((outside.routed, outside.reason.as_str())) {
            return;
        }
        // Each change of weights is pending for a moment: no news.
        let was_wrong = was.is_some_and(|(routed, reason)| !routed && reason != PENDING);
        if outside.routed && was_wrong {
            let message = outside.message.as_str();
            self.notices.push(Notice::normal("Routed", message));
        } else if outside.is_wrong {
            let message = outside.message.as_str();
            self.notices.push(Notice::warning(&outside.reason, message));
        }
    }
}

/// What the status tells: of the first route that is not accepted, HTTP first.
fn tell(gateway: &Gateway, steps: &[Step]) -> Outside {
    let mut open = steps
        .iter()
        .filter(|step| !matches!(step.state, Far::Judged(Verdict::Accepted)));
    let first = open.next();
    let has_http = steps.iter().any(|step| !step.is_grpc);
    let (reason, message, is_wrong) = match first {
        Some(step) => step.tell(),
        None => ("Accepted".into(), accepted(gateway, steps), false),
    };
    let settled = |wants_grpc: bool| {
        let step = steps.iter().find(|step| step.is_grpc == wants_grpc)?;
        Some(match &step.state {
            Far::Judged(Verdict::Accepted) => Some(true),
            Far::Judged(Verdict::Refused { .. }) | Far::Absent => Some(false),
            Far::Judged(Verdict::Pending { .. }) | Far::Unknown | Far::Waits | Far::Written => None,
        })
    };
    Outside {
        routed: first.is_none(),
        // gRPC alone may be refused where a listener takes one route for a host.
        blocks: first.is_some_and(|step| !step.is_grpc || !has_http),
        is_wrong,
        reason,
        message,
        http: settled(false),
        grpc: settled(true),
    }
}

fn accepted(gateway: &Gateway, steps: &[Step]) -> String {
    let names = steps
        .iter()
        .map(|step| format!("{} {}", step.kind, step.name));
    let names: Vec<String> = names.collect();
    let mut message = format!("every Gateway has taken {}", names.join(" and "));
    if gateway.prefix().is_some() {
        message += "; gRPC does not pass, for a GRPCRoute can have no pathPrefix";
    }
    message
}

impl Step {
    /// Reason, message, and whether somebody has to do something.
    fn tell(&self) -> (String, String, bool) {
        let Self { kind, name, .. } = self;
        let pending = |message: String| (PENDING.to_owned(), message, false);
        match &self.state {
            Far::Absent => (
                "GatewayAPIMissing".into(),
                format!(
                    "the cluster knows no {kind} of {}: install the CustomResourceDefinitions of the Gateway API (standard channel), or leave routing.gateway out",
                    gateway::types::VERSION
                ),
                true,
            ),
            Far::Unknown => pending(format!(
                "{kind}s of the cluster are not known yet; if that lasts, the operator may not list them, and its log says why"
            )),
            Far::Waits => pending(format!(
                "{kind} {name} waits until the revision's new Service has its endpoints"
            )),
            Far::Written => pending(format!("{kind} {name} is written")),
            Far::Judged(Verdict::Accepted) => pending(format!("{kind} {name} is accepted")),
            Far::Judged(Verdict::Pending { gateway }) => pending(format!(
                "Gateway {gateway} has not looked at {kind} {name} as it is now: is there such a Gateway, and does its controller run?"
            )),
            Far::Judged(Verdict::Refused {
                gateway,
                condition,
                reason,
                message,
            }) => {
                let what = match *condition {
                    "Accepted" => "does not accept",
                    _ => "cannot resolve what it sends requests to by",
                };
                let what = format!("Gateway {gateway} {what} {kind} {name}: {message}");
                let hint = match (self.is_grpc, *condition) {
                    (true, "Accepted") => {
                        "; where a listener takes one route for a host, write routing.gateway.grpcHostnames, or protocols: [HTTP]"
                    }
                    _ => "",
                };
                (reason.clone(), format!("{what}{hint}"), true)
            }
        }
    }
}
