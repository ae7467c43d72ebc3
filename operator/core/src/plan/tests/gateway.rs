//! With routes of the Gateway API: what is written, in which order, and what is waited for.

use super::*;
use crate::{
    gateway::{Presence, SEASONED, types::ParentStatus, types::RouteStatus},
    observed::{About, Report},
};

const ROUTER: &str = "router.system.svc.cluster.local";

/// How the Gateways behave.
#[derive(Clone, Copy, PartialEq)]
enum Gateways {
    /// They take everything.
    Take,
    /// They say nothing.
    Silent,
}

fn with(spec: &Value, routing: Value) -> Value {
    let mut spec = spec.clone();
    spec["routing"] = routing;
    spec
}

fn gateway() -> Value {
    json!({"parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}], "hostnames": ["m.example.com"]})
}

fn behind(spec: &Value) -> Value {
    with(spec, json!({"gateway": gateway()}))
}

fn by_gateways(spec: &Value) -> Value {
    with(
        spec,
        json!({"gateway": gateway(), "provider": "GatewayAPI"}),
    )
}

fn settled<M>(route: &mut crate::gateway::types::Route<M>) {
    let condition = |kind: &str| {
        read(
            json!({"type": kind, "status": "True", "reason": kind, "message": "", "observedGeneration": route.metadata.generation,
            "lastTransitionTime": "2026-01-01T00:00:00Z"}),
        )
    };
    let conditions = vec![condition("Accepted"), condition("ResolvedRefs")];
    let parents = route.spec.parent_refs.iter().map(|parent| ParentStatus {
        parent_ref: parent.clone(),
        controller_name: "example.com/gateway".into(),
        conditions: conditions.clone(),
    });
    route.status = Some(RouteStatus {
        parents: parents.collect(),
    });
}

impl World {
    fn with_gateway_api(spec: Value) -> Self {
        let mut world = Self::new(spec);
        world.observed.routes.http_api = Presence::Present;
        world.observed.routes.grpc_api = Presence::Present;
        world
    }

    fn with_both(spec: Value) -> Self {
        Self {
            router: Some(ROUTER.into()),
            ..Self::with_gateway_api(spec)
        }
    }

    /// What the Gateways say, and what ready pods say of themselves.
    fn play_gateways(&mut self, gateways: Gateways) {
        let routes = &mut self.observed.routes;
        if gateways == Gateways::Take {
            routes.http.iter_mut().for_each(settled);
            routes.grpc.iter_mut().for_each(settled);
        }
        routes.settled = routes
            .fingerprint()
            .filter(|routes| !routes.is_empty())
            .map(|_| Duration::from_secs(5));
        let provider = ortolan_crds::ProviderStatus {
            requested: "CPU".into(),
            active: "CPU".into(),
        };
        let about = About {
            provider: Some(provider),
            ..About::default()
        };
        let pods = self.observed.pods.iter();
        let uids = pods.filter_map(|pod| pod.metadata.uid.clone());
        let digest = format!("sha256:{}", "0".repeat(64));
        self.observed.reports = uids
            .map(|uid| {
                let (digest, about) = (digest.clone(), about.clone());
                (uid, Report { digest, about })
            })
            .collect();
    }

    /// Looks until nothing is left to do, or so often; what `see` finds on the way, each once.
    fn see<T: PartialEq>(
        &mut self,
        gateways: Gateways,
        looks: usize,
        see: impl Fn(&Self) -> T,
    ) -> Vec<T> {
        let mut seen = Vec::new();
        for _ in 0..looks {
            self.play_gateways(gateways);
            let over = self.look();
            let now = see(self);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
            if over {
                break;
            }
        }
        seen
    }

    fn end(&mut self) {
        self.see(Gateways::Take, 4_000, |_| ());
    }

    fn status(&self) -> ortolan_crds::InferenceServiceStatus {
        self.observed.service.status.clone().expect("a status")
    }

    fn condition(&self, kind: &str) -> (String, String, String) {
        let status = self.status();
        let found = status.conditions.iter().find(|c| c.type_ == kind);
        let found = found.unwrap_or_else(|| panic!("no {kind}: {status:#?}"));
        (
            found.status.clone(),
            found.reason.clone(),
            found.message.clone(),
        )
    }

    /// Of the HTTPRoute.
    fn weights(&self) -> BTreeMap<String, i32> {
        let rules = self.observed.routes.http.iter().flat_map(|r| &r.spec.rules);
        let refs = rules.flat_map(|rule| &rule.backend_refs);
        refs.map(|to| (to.name.clone(), to.weight.expect("a weight")))
            .collect()
    }

    fn service_names(&self) -> Vec<String> {
        let services = self.observed.services.iter();
        services.filter_map(|s| s.metadata.name.clone()).collect()
    }

    /// The revisions with Deployments, the older one first.
    fn revisions(&self) -> Vec<String> {
        let mut all: Vec<_> = self.observed.revisions.iter().collect();
        all.sort_by_key(|r| r.revision);
        all.iter().filter_map(|r| r.metadata.name.clone()).collect()
    }
}

#[test]
fn routes_point_at_the_routers_and_tell_them_the_service() {
    let mut world = World::with_both(behind(&one()));
    world.end();
    let http = serde_json::to_value(&world.observed.routes.http[0]).expect("JSON");
    assert_eq!(http["metadata"]["name"], "m");
    assert_eq!(http["metadata"]["ownerReferences"][0]["uid"], "owner");
    let parent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "infra", "name": "public", "sectionName": "web"});
    assert_eq!(http["spec"]["parentRefs"], json!([parent]));
    assert_eq!(http["spec"]["hostnames"], json!(["m.example.com"]));
    let header = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-ortolan-service", "value": "ns/m"}]}});
    let routers = json!([{"group": "", "kind": "Service", "namespace": "system", "name": "router", "port": 80, "weight": 1}]);
    assert_eq!(
        http["spec"]["rules"],
        json!([{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "filters": [header], "backendRefs": routers}])
    );
    let grpc = serde_json::to_value(&world.observed.routes.grpc[0]).expect("JSON");
    assert_eq!(grpc["metadata"]["name"], "m-grpc");
    assert_eq!(grpc["spec"]["rules"][0]["filters"], json!([header]));
    assert_eq!(grpc["spec"]["rules"][0]["backendRefs"], routers);
    let method = &grpc["spec"]["rules"][0]["matches"][0]["method"];
    assert_eq!(
        *method,
        json!({"type": "Exact", "service": "inference.GRPCInferenceService"})
    );
    assert_eq!(world.condition("Ready").1, "Serving");
    let (status, reason, message) = world.condition("Routed");
    assert_eq!((&*status, &*reason), ("True", "Accepted"));
    assert_eq!(
        message,
        "every Gateway has taken HTTPRoute m and GRPCRoute m-grpc"
    );
    let status = world.status();
    assert_eq!(status.url.as_deref(), Some("http://m.example.com"));
    let addresses = status.addresses.expect("addresses");
    assert_eq!(addresses.rest, "m.example.com:80");
    assert_eq!(addresses.grpc.as_deref(), Some("m.example.com:80"));
    assert!(world.plan().writes.is_empty());
}

#[test]
fn in_the_routers_own_namespace_and_without_routers_no_namespace_is_crossed() {
    let mut world = World::with_both(behind(&one()));
    world.router = Some("router.ns.svc.cluster.local".into());
    world.end();
    let to = &world.observed.routes.http[0].spec.rules[0].backend_refs[0];
    assert_eq!((to.namespace.as_deref(), &*to.name), (None, "router"));
    let mut world = World::with_gateway_api(behind(&one()));
    world.end();
    let rule = &world.observed.routes.http[0].spec.rules[0];
    let to = &rule.backend_refs[0];
    assert_eq!((to.namespace.as_deref(), &*to.name), (None, "m"));
    assert!(rule.filters.is_empty(), "pods are told no service");
}

#[test]
fn a_prefix_is_cut_off_and_grpc_which_has_none_does_not_pass() {
    let mut gateway = gateway();
    gateway["pathPrefix"] = json!("/models/m");
    let mut world = World::with_both(with(&one(), json!({"gateway": gateway})));
    world.end();
    let rule = serde_json::to_value(&world.observed.routes.http[0].spec.rules[0]).expect("JSON");
    assert_eq!(
        rule["matches"],
        json!([{"path": {"type": "PathPrefix", "value": "/models/m"}}])
    );
    assert_eq!(
        rule["filters"][1],
        json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}})
    );
    assert!(world.observed.routes.grpc.is_empty());
    let message = world.condition("Routed").2;
    assert!(message.contains("gRPC does not pass"), "{message}");
    let status = world.status();
    assert_eq!(status.url.as_deref(), Some("http://m.example.com/models/m"));
    assert_eq!(
        status.addresses.and_then(|a| a.grpc).as_deref(),
        Some("m.ns.svc:80")
    );
}

#[test]
fn without_the_api_it_serves_inside_says_so_and_goes_on_when_the_api_comes() {
    let mut world = World::new(behind(&one()));
    world.observed.routes.http_api = Presence::Absent;
    world.observed.routes.grpc_api = Presence::Absent;
    world.see(Gateways::Silent, 20, |_| ());
    let (ready, reason, message) = world.condition("Ready");
    assert_eq!((&*ready, &*reason), ("False", "GatewayAPIMissing"));
    assert!(
        message.contains("install the CustomResourceDefinitions"),
        "{message}"
    );
    assert_eq!(world.condition("Available").0, "True");
    assert_eq!(world.condition("Progressing").0, "True");
    assert_eq!(world.status().url.as_deref(), Some("http://m.ns.svc"));
    assert_eq!(world.plan().requeue, Some(crate::gateway::LOOK_AGAIN));
    assert!(world.observed.routes.http.is_empty());
    world.observed.routes.http_api = Presence::Present;
    world.observed.routes.grpc_api = Presence::Present;
    world.end();
    assert_eq!(world.condition("Ready").1, "Serving");
    assert_eq!(world.status().url.as_deref(), Some("http://m.example.com"));
}

#[test]
fn nothing_is_written_or_removed_while_the_routes_are_not_known() {
    let mut world = World::with_gateway_api(by_gateways(&one()));
    world.end();
    world.observed.routes = crate::gateway::Routes::default();
    let plan = world.plan();
    assert!(plan.writes.is_empty(), "{:#?}", plan.writes);
    world.change(one());
    let plan = world.plan();
    assert!(plan.writes.is_empty(), "{:#?}", plan.writes);
}

#[test]
fn a_refusal_is_told_in_the_gateways_own_words() {
    let mut world = World::with_both(behind(&one()));
    world.end();
    let refuse = |status: &mut Option<RouteStatus>| {
        let conditions = &mut status.as_mut().expect("a status").parents[0].conditions;
        conditions[0].status = "False".into();
        conditions[0].reason = "NotAllowedByListeners".into();
        conditions[0].message = "no listener takes routes of namespace ns".into();
    };
    refuse(&mut world.observed.routes.grpc[0].status);
    let plan = world.plan();
    assert_eq!(told(&plan), ["NotAllowedByListeners"]);
    world.carry_out(plan, usize::MAX);
    let (status, reason, message) = world.condition("Routed");
    assert_eq!((&*status, &*reason), ("False", "NotAllowedByListeners"));
    assert_eq!(
        message,
        "Gateway infra/public (listener web) does not accept GRPCRoute m-grpc: no listener takes routes of namespace ns; \
         where a listener takes one route for a host, write routing.gateway.grpcHostnames, or protocols: [HTTP]"
    );
    assert_eq!(
        world.condition("Ready").1,
        "Serving",
        "the HTTPRoute carries all there is"
    );
    assert_eq!(
        world.status().addresses.and_then(|a| a.grpc).as_deref(),
        Some("m.ns.svc:80")
    );
    refuse(&mut world.observed.routes.http[0].status);
    let plan = world.plan();
    assert!(told(&plan).is_empty(), "the same reason was told of");
    world.carry_out(plan, usize::MAX);
    assert_eq!(world.condition("Ready").1, "NotAllowedByListeners");
    assert_eq!(world.status().url.as_deref(), Some("http://m.ns.svc"));
}

#[test]
fn what_is_edited_or_added_by_hand_is_set_back() {
    let mut world = World::with_both(behind(&one()));
    world.end();
    let edits: [fn(&mut crate::gateway::types::HttpRoute); 4] = [
        |r| r.spec.hostnames.push("evil.example.com".into()),
        |r| r.spec.rules[0].backend_refs[0].weight = Some(7),
        |r| {
            let other = r.spec.rules[0].backend_refs[0].clone();
            r.spec.rules[0].backend_refs.push(other);
        },
        |r| r.spec.rules[0].filters.clear(),
    ];
    for edit in edits {
        let before = world.observed.routes.http[0].spec.clone();
        edit(&mut world.observed.routes.http[0]);
        let plan = world.plan();
        assert_eq!(verbs(&plan), ["route"]);
        assert!(told(&plan).contains(&"DriftRepaired"), "{:?}", told(&plan));
        world.carry_out(plan, usize::MAX);
        world.end();
        assert_eq!(world.observed.routes.http[0].spec, before);
    }
}

#[test]
fn routes_go_when_the_spec_asks_for_none_or_for_one() {
    let mut world = World::with_both(behind(&one()));
    world.end();
    let mut only = gateway();
    only["protocols"] = json!(["GRPC"]);
    only["grpcHostnames"] = json!(["g.example.com"]);
    world.change(with(&one(), json!({"gateway": only})));
    world.end();
    let o = &world.observed.routes;
    assert_eq!((o.http.len(), o.grpc.len()), (0, 1));
    assert_eq!(o.grpc[0].spec.hostnames, ["g.example.com"]);
    world.change(one());
    world.end();
    let o = &world.observed.routes;
    assert!(o.http.is_empty() && o.grpc.is_empty());
    let routed = world.status().conditions.into_iter();
    assert_eq!(routed.filter(|c| c.type_ == "Routed").count(), 0);
}

#[test]
fn weights_go_to_a_service_of_each_revision_with_an_address_and_ready_pods_only() {
    let mut world = World::with_gateway_api(by_gateways(&one()));
    let first = world.plan();
    assert!(!verbs(&first).contains(&"route"), "its Service is new");
    world.end();
    let revision = world.revisions()[0].clone();
    let name = format!("{revision}-gw");
    assert_eq!(world.service_names(), ["m".to_owned(), name.clone()]);
    let service = &world.observed.services[1];
    let spec = service.spec.clone().expect("a spec");
    assert_eq!(spec.type_.as_deref(), Some("ClusterIP"));
    assert_eq!(
        (spec.cluster_ip, spec.publish_not_ready_addresses),
        (None, None)
    );
    assert_eq!(
        spec.selector.expect("a selector")[names::REVISION],
        revision
    );
    let labels = service.metadata.labels.clone().expect("labels");
    assert!(
        !labels.contains_key(names::REVISION),
        "routers would find each pod twice"
    );
    assert_eq!(world.weights(), BTreeMap::from([(name, 100)]));
    let route = &world.observed.routes.http[0];
    assert!(route.spec.rules[0].filters.is_empty());
    let annotations = route.metadata.annotations.clone().expect("annotations");
    let generation = world.status().rollout.and_then(|r| r.generation);
    assert_eq!(
        Some(annotations[names::TRAFFIC].clone()),
        generation.map(|g| g.to_string())
    );
    assert_eq!(world.condition("Ready").1, "Serving");
}

#[test]
fn all_at_once_the_candidate_is_known_with_weight_0_first_and_the_old_pods_go_last() {
    let mut world = World::with_gateway_api(by_gateways(&one()));
    world.end();
    let old = world.revisions()[0].clone();
    world.change(by_gateways(&two()));
    let seen = world.see(Gateways::Take, 4_000, |world| {
        (world.weights(), world.observed.deployments.len())
    });
    let new = world.revisions()[1].clone();
    let (a, b) = (format!("{old}-gw"), format!("{new}-gw"));
    let both = |x, y| BTreeMap::from([(a.clone(), x), (b.clone(), y)]);
    let expected = [
        (both(100, 0), 2),
        (both(0, 100), 2),
        (BTreeMap::from([(b.clone(), 100)]), 2),
        (BTreeMap::from([(b.clone(), 100)]), 1),
    ];
    assert_eq!(seen, expected);
    assert_eq!(world.service_names(), ["m".to_owned(), b]);
    let status = world.status();
    assert_eq!(status.rollout.expect("a rollout").evidence, None);
}

#[test]
fn while_the_gateways_are_silent_no_shift_is_done_and_no_pod_goes() {
    use ortolan_crds::RolloutPhase::Promoting;
    let mut world = World::with_gateway_api(by_gateways(&one()));
    world.end();
    world.change(by_gateways(&two()));
    world.see(Gateways::Silent, 100, |_| ());
    let rollout = world.status().rollout.expect("a rollout");
    assert_eq!(
        (rollout.phase, rollout.stage.as_deref()),
        (Promoting, Some("Shift"))
    );
    assert_eq!(world.observed.deployments.len(), 2);
    let message = world.condition("Routed").2;
    assert!(
        message.starts_with("Gateway infra/public (listener web) has not looked at HTTPRoute m"),
        "{message}"
    );
    // A new wish takes the candidate back; its pods stay until that has arrived.
    world.change(by_gateways(&one()));
    world.see(Gateways::Silent, 100, |_| ());
    let rollout = world.status().rollout.expect("a rollout");
    assert_eq!(rollout.stage.as_deref(), Some("ShiftBack"));
    assert_eq!(world.observed.deployments.len(), 2);
    world.end();
    assert_eq!(world.observed.deployments.len(), 1);
    assert_eq!(world.condition("Ready").1, "Serving");
}

#[test]
fn a_weight_by_hand_stays_and_a_candidate_without_ready_pods_gets_none() {
    let mut world = World::with_gateway_api(by_gateways(&one()));
    world.end();
    let mut canary = by_gateways(&two());
    canary["rollout"] = json!({"weight": 20});
    world.change(canary.clone());
    world.see(Gateways::Take, 300, |_| ());
    let names = world.revisions();
    let (a, b) = (format!("{}-gw", names[0]), format!("{}-gw", names[1]));
    let both = |x, y| BTreeMap::from([(a.clone(), x), (b.clone(), y)]);
    assert_eq!(world.weights(), both(80, 20));
    let rollout = world.status().rollout.expect("a rollout");
    assert_eq!(rollout.stage.as_deref(), Some("Soak"));
    // Its pods are gone for a moment.
    world.play_gateways(Gateways::Take);
    world
        .observed
        .pods
        .retain(|pod| label(&pod.metadata, names::REVISION) != Some(names[1].as_str()));
    let plan = world.plan();
    world.carry_out(plan, usize::MAX);
    assert_eq!(world.weights(), both(100, 0));
    world.settle_pods();
    world.see(Gateways::Take, 300, |_| ());
    assert_eq!(world.weights(), both(80, 20));
    canary["rollout"] = json!({"weight": 100});
    world.change(canary);
    world.see(Gateways::Take, 300, |_| ());
    assert_eq!(world.weights(), both(0, 100));
}

#[test]
fn from_the_routers_to_the_gateways_and_back_each_route_has_endpoints() {
    let mut world = World::with_both(behind(&one()));
    world.end();
    let routers = BTreeMap::from([("router".to_owned(), 1)]);
    assert_eq!(world.weights(), routers);
    world.change(by_gateways(&one()));
    let made = world.now;
    let seen = world.see(Gateways::Take, 4_000, |world| {
        (world.weights(), world.now >= made + SEASONED)
    });
    let backend = format!("{}-gw", world.revisions()[0]);
    let own = BTreeMap::from([(backend.clone(), 100)]);
    assert_eq!(seen.first(), Some(&(routers.clone(), true)), "{seen:?}");
    assert_eq!(seen.last(), Some(&(own, true)));
    world.change(behind(&one()));
    world.play_gateways(Gateways::Take);
    world.look();
    assert_eq!(world.weights(), routers);
    assert!(
        world.service_names().contains(&backend),
        "until the Gateways have the route without it"
    );
    world.end();
    assert!(!world.service_names().contains(&backend));
    assert_eq!(
        world.service_names().len(),
        2,
        "the alias, and where the routers find the pods"
    );
}
