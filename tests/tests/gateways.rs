//! Routes of the Gateway API on a real API server; what the Gateways say of them is played ([`ortolan_tests::gateways`]), and
//! so are the pods.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use ortolan_core::gateway::types::{GrpcRoute, HttpRoute, ReferenceGrant};
use ortolan_crds::{InferenceService, RolloutPhase, names};
use ortolan_tests::{
    Cluster, Fate, Operator, World,
    gateways::{self, API, Gateways, Say},
    pods,
    tap::Tap,
    world::{condition, definition_may_change, spec, world},
};
use serde_json::{Value, json};

use crate::lifecycle::revision_of;

/// The definitions are there as long as this is held.
async fn installed() -> tokio::sync::RwLockReadGuard<'static, ()> {
    let shared = API.read().await;
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let _alone = definition_may_change();
        gateways::install();
    });
    shared
}

fn behind(file: &str) -> Value {
    let mut spec = spec(file);
    spec["routing"] = json!({"gateway": {"parentRefs": [{"name": "public", "namespace": "infra"}], "hostnames": ["m.example.com"]}});
    spec
}

fn by_gateways(file: &str) -> Value {
    let mut spec = behind(file);
    spec["routing"]["provider"] = json!("GatewayAPI");
    spec["rollout"] = json!({"analysis": {"settle": "10s"}, "rollbackWindow": "1s"});
    spec
}

/// Reason and message of `Routed`, where its status is this.
fn routed(service: &InferenceService, status: &str) -> Option<(String, String)> {
    let routed = condition(service, "Routed").filter(|c| c.status == status)?;
    Some((routed.reason.clone(), routed.message.clone()))
}

async fn until_routed(w: &World, status: &str, reason: &str) -> InferenceService {
    let what = format!("m becomes Routed={status} {reason}");
    w.until_service(&what, "m", |service| {
        routed(service, status).is_some_and(|(why, _)| why == reason)
    })
    .await
}

fn weights(route: &HttpRoute) -> BTreeMap<String, i32> {
    let refs = route.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    refs.map(|to| (to.name.clone(), to.weight.unwrap_or(1)))
        .collect()
}

async fn until_weights(w: &World, what: &str, expected: &[(&str, i32)]) -> HttpRoute {
    let expected: BTreeMap<String, i32> = expected
        .iter()
        .map(|(revision, weight)| (format!("{revision}-gw"), *weight))
        .collect();
    w.until_object(what, "m", |route: &HttpRoute| weights(route) == expected)
        .await
}

/// The routers' Service, in a namespace of its own; answers the operator's options.
async fn routers(w: &World) -> (World, Vec<String>) {
    let system = w.beside("system").await;
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "routers"}, "spec": {"ports": [{"port": 80}], "clusterIP": "None"},
    }))
    .expect("a Service");
    let made = system.api().create(&PostParams::default(), &service).await;
    made.expect("the routers' Service");
    let full = format!("routers.{}.svc.cluster.local", system.namespace);
    (system, vec!["--router".into(), full])
}

async fn delete<K>(w: &World, name: &str)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let deleted = w.api::<K>().delete(name, &DeleteParams::default()).await;
    deleted.expect("a deletion");
}

fn operator(w: &World, options: &[String]) -> Operator {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Operator::with(w, &options, Tap::default())
}

#[test]
fn the_api_may_be_absent_come_later_and_go_again() {
    world(async |w| {
        let _alone = API.write().await;
        {
            let _definitions = definition_may_change();
            gateways::remove();
        }
        let _cluster = Cluster::start(&w, Fate::Ready);
        let operator = Operator::start(&w);
        w.create("m", behind("a")).await;
        let service = until_routed(&w, "False", "GatewayAPIMissing").await;
        let (_, message) = routed(&service, "False").expect("a reason");
        assert!(
            message.contains("install the CustomResourceDefinitions of the Gateway API"),
            "{message}"
        );
        let service = w.until_ready_is("m", "False", "GatewayAPIMissing").await;
        let available = condition(&service, "Available").expect("a condition");
        assert_eq!(available.status, "True", "it serves inside the cluster");
        let status = service.status.expect("a status");
        assert_eq!(status.url, Some(format!("http://m.{}.svc", w.namespace)));
        w.until_event("m", "GatewayAPIMissing", "install").await;
        {
            let _definitions = definition_may_change();
            gateways::install();
        }
        let _gateways = Gateways::start(&w, Say::Accept);
        w.until_ready_is("m", "True", "Serving").await;
        // Ready does not wait for the GRPCRoute.
        let service = until_routed(&w, "True", "Accepted").await;
        assert_eq!(
            service.status.and_then(|status| status.url).as_deref(),
            Some("http://m.example.com")
        );
        {
            let _definitions = definition_may_change();
            gateways::remove();
        }
        // Something of it is looked at.
        let more = json!({"metadata": {"annotations": {"example.com/look": "again"}}});
        w.edit::<InferenceService>("m", more).await;
        until_routed(&w, "False", "GatewayAPIMissing").await;
        {
            let _definitions = definition_may_change();
            gateways::install();
        }
        w.until_ready_is("m", "True", "Serving").await;
        let log = operator.log.text();
        assert!(!log.contains("panicked"), "{log}");
    });
}

#[test]
fn routes_point_at_the_routers_are_held_to_the_spec_and_go_with_it() {
    world(async |w| {
        let _api = installed().await;
        let (system, options) = routers(&w).await;
        let _cluster = Cluster::start(&w, pods::telling());
        let _gateways = Gateways::start(&w, Say::Accept);
        let _operator = operator(&w, &options);
        w.create("m", behind("a")).await;
        let service = w.until_ready_is("m", "True", "Serving").await;
        let http: HttpRoute = w.get("m").await;
        let grpc: GrpcRoute = w.get("m-grpc").await;
        for owner in [http.owner_references(), grpc.owner_references()] {
            assert_eq!(owner[0].uid, service.uid().unwrap_or_default());
        }
        let to = &http.spec.rules[0].backend_refs[0];
        assert_eq!(
            (to.namespace.as_deref(), &*to.name),
            (Some(&*system.namespace), "routers")
        );
        let header = http.spec.rules[0].filters[0]
            .request_header_modifier
            .clone();
        let header = header.expect("a header").set[0].clone();
        assert_eq!(
            (header.name, header.value),
            ("x-ortolan-service".into(), format!("{}/m", w.namespace))
        );
        // Nothing is written twice.
        let version = http.resource_version();
        let again: HttpRoute = w.get("m").await;
        assert_eq!(again.resource_version(), version);
        // Edited and deleted by hand.
        let edit = json!({"spec": {"hostnames": ["m.example.com", "evil.example.com"]}});
        w.edit::<HttpRoute>("m", edit).await;
        w.until_object("the host goes", "m", |route: &HttpRoute| {
            route.spec.hostnames == ["m.example.com"]
        })
        .await;
        w.until_event("m", "DriftRepaired", "HTTPRoute m").await;
        delete::<GrpcRoute>(&w, "m-grpc").await;
        w.until_object("it comes back", "m-grpc", |route: &GrpcRoute| {
            route.uid() != grpc.uid()
        })
        .await;
        w.edit::<InferenceService>(
            "m",
            json!({"spec": {"routing": {"gateway": {"protocols": ["HTTP"]}}}}),
        )
        .await;
        w.until_gone::<GrpcRoute>("m-grpc").await;
        w.edit::<InferenceService>("m", json!({"spec": {"routing": null}}))
            .await;
        w.until_gone::<HttpRoute>("m").await;
        let service = w
            .until_service("nothing is said of routes", "m", |service| {
                condition(service, "Routed").is_none()
            })
            .await;
        let url = service.status.and_then(|status| status.url);
        assert_eq!(url, Some(format!("http://m.{}.svc", w.namespace)));
    });
}

#[test]
fn one_grant_lets_the_routes_of_a_namespace_point_at_the_routers_as_long_as_one_needs_it() {
    world(async |w| {
        let _api = installed().await;
        let (system, options) = routers(&w).await;
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = operator(&w, &options);
        let name = format!("routers-from-{}", w.namespace);
        // Somebody else's, and one of another namespace's operator.
        let other = |name: &str, of: &str| -> ReferenceGrant {
            serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {(names::MANAGED_BY): names::ORTOLAN, (names::GRANTED): of},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "routers", "uid": "1"}]},
                "spec": {"from": [{"group": "", "kind": "Pod", "namespace": "x"}], "to": [{"group": "", "kind": "Service"}]},
            }))
            .expect("a grant")
        };
        let grants: Api<ReferenceGrant> = system.api();
        let mut body = serde_json::to_value(other("others", "others")).expect("JSON");
        body["apiVersion"] = json!("gateway.networking.k8s.io/v1beta1");
        body["kind"] = json!("ReferenceGrant");
        let params = kube::api::PatchParams::apply("somebody");
        let patch = kube::api::Patch::Apply(&body);
        grants
            .patch("others", &params, &patch)
            .await
            .expect("a grant");
        w.create("m", behind("a")).await;
        w.create("n", behind("a")).await;
        let grant = system
            .until_object("the grant", &name, |_: &ReferenceGrant| true)
            .await;
        let from: Vec<_> = grant
            .spec
            .from
            .iter()
            .map(|from| (&*from.kind, &*from.namespace))
            .collect();
        let own = &*w.namespace;
        assert_eq!(from, [("HTTPRoute", own), ("GRPCRoute", own)]);
        let to = &grant.spec.to[0];
        assert_eq!(
            (&*to.kind, to.name.as_deref()),
            ("Service", Some("routers"))
        );
        let routers: Service = system.get("routers").await;
        assert_eq!(
            grant.owner_references()[0].uid,
            routers.uid().unwrap_or_default()
        );
        w.edit::<InferenceService>("m", json!({"spec": {"routing": null}}))
            .await;
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        let kept: ReferenceGrant = system.get(&name).await;
        assert_eq!(kept.uid(), grant.uid(), "n needs it");
        delete::<InferenceService>(&w, "n").await;
        system.until_gone::<ReferenceGrant>(&name).await;
        let left = grants.list(&ListParams::default()).await.expect("a list");
        assert_eq!(left.items.len(), 1, "the other operator's is left alone");
    });
}

#[test]
fn what_a_gateway_has_against_a_route_is_told_in_its_words() {
    world(async |w| {
        let _api = installed().await;
        let _cluster = Cluster::start(&w, Fate::Ready);
        let gateways = Gateways::start(&w, Say::Nothing);
        let _operator = Operator::start(&w);
        w.create("m", behind("a")).await;
        let service = until_routed(&w, "False", "RoutePending").await;
        let said = |service: &InferenceService| {
            let (_, message) = routed(service, "False").unwrap_or_default();
            message
        };
        let service = match said(&service).contains("has not looked") {
            true => service,
            false => {
                let looked = |s: &InferenceService| said(s).contains("has not looked");
                w.until_service("the Gateway is named", "m", looked).await
            }
        };
        assert!(
            said(&service).starts_with("Gateway infra/public has not looked at HTTPRoute m"),
            "{}",
            said(&service)
        );
        w.until_ready_is("m", "False", "RoutePending").await;
        let refused = Say::Refuse("NotAllowedByListeners", "no listener takes this namespace");
        gateways.say(refused, refused);
        let service = w
            .until_ready_is("m", "False", "NotAllowedByListeners")
            .await;
        assert_eq!(
            said(&service),
            "Gateway infra/public does not accept HTTPRoute m: no listener takes this namespace"
        );
        w.until_event(
            "m",
            "NotAllowedByListeners",
            "no listener takes this namespace",
        )
        .await;
        let lost = Say::CannotResolve("BackendNotFound", "Service m not found");
        gateways.say(lost, Say::Accept);
        w.until_ready_is("m", "False", "BackendNotFound").await;
        gateways.say(Say::Accept, refused);
        let service = w.until_ready_is("m", "True", "Serving").await;
        assert!(said(&service).contains("GRPCRoute m-grpc"), "HTTP passes");
        gateways.say(Say::Accept, Say::Accept);
        until_routed(&w, "True", "Accepted").await;
        let route: HttpRoute = w.get("m").await;
        assert_eq!(route.spec.rules[0].backend_refs[0].name, "m");
    });
}

async fn deployments(w: &World) -> usize {
    let all = w.api::<Deployment>().list(&ListParams::default()).await;
    all.expect("a list").items.len()
}

/// `m` serves by weights; answers its revision.
async fn first(w: &Arc<World>) -> String {
    let service = w.create("m", by_gateways("a")).await;
    let revision = revision_of(&service);
    w.until_ready_is("m", "True", "Serving").await;
    until_weights(w, "all to the first", &[(&revision, 100)]).await;
    revision
}

#[test]
fn weights_move_all_at_once_and_no_pod_goes_before_the_gateways_have_them() {
    world(async |w| {
        let _api = installed().await;
        let _cluster = Cluster::start(&w, pods::telling());
        let gateways = Gateways::start(&w, Say::Accept);
        let _operator = Operator::start(&w);
        let old = first(&w).await;
        let service: Service = w.get(&format!("{old}-gw")).await;
        let spec = service.spec.expect("a spec");
        assert_eq!(spec.type_.as_deref(), Some("ClusterIP"));
        assert!(spec.cluster_ip.is_some_and(|ip| ip != "None"));
        let edited = w.edit("m", json!({"spec": by_gateways("b")})).await;
        let new = revision_of(&edited);
        until_weights(&w, "known before it gets any", &[(&old, 100), (&new, 0)]).await;
        gateways.say(Say::Nothing, Say::Nothing);
        until_weights(&w, "all to the candidate", &[(&old, 0), (&new, 100)]).await;
        let what = "the shift is not done while the Gateways say nothing";
        let is_shifting = |service: &InferenceService| {
            let status = service.status.as_ref();
            let rollout = status.and_then(|status| status.rollout.as_ref());
            rollout.is_some_and(|r| {
                r.phase == RolloutPhase::Promoting && r.stage.as_deref() == Some("Shift")
            })
        };
        w.until_service(what, "m", is_shifting).await;
        tokio::time::sleep(std::time::Duration::from_secs(15)).await;
        let service: InferenceService = w.get("m").await;
        assert!(is_shifting(&service), "{:#?}", service.status);
        assert_eq!(deployments(&w).await, 2);
        gateways.say(Say::Accept, Say::Accept);
        w.until_ready_is("m", "True", "Serving").await;
        until_weights(&w, "the old one is named no more", &[(&new, 100)]).await;
        w.until_gone::<Deployment>(&old).await;
        w.until_gone::<Service>(&format!("{old}-gw")).await;
    });
}

#[test]
fn a_share_is_set_by_hand_and_falls_to_nothing_with_the_last_ready_pod() {
    world(async |w| {
        let _api = installed().await;
        let cluster = Cluster::start(&w, pods::telling());
        let _gateways = Gateways::start(&w, Say::Accept);
        let _operator = Operator::start(&w);
        let old = first(&w).await;
        let mut canary = by_gateways("b");
        canary["rollout"]["weight"] = json!(20);
        let edited = w.edit("m", json!({"spec": canary})).await;
        let new = revision_of(&edited);
        until_weights(&w, "a fifth", &[(&old, 80), (&new, 20)]).await;
        cluster.fate(&new, Fate::container(json!({"running": {}}), 0));
        until_weights(&w, "its pod is not ready", &[(&old, 100), (&new, 0)]).await;
        cluster.fate(&new, pods::telling());
        until_weights(&w, "it is again", &[(&old, 80), (&new, 20)]).await;
        let abort =
            json!({"metadata": {"annotations": {(names::COMMAND): format!("promote {new} 1")}}});
        w.edit::<InferenceService>("m", abort).await;
        until_weights(&w, "promoted", &[(&new, 100)]).await;
        w.until_ready_is("m", "True", "Serving").await;
    });
}

#[test]
fn a_service_changes_from_the_routers_to_the_gateways_and_back() {
    world(async |w| {
        let _api = installed().await;
        let (_system, options) = routers(&w).await;
        let _cluster = Cluster::start(&w, pods::telling());
        let _gateways = Gateways::start(&w, Say::Accept);
        let _operator = operator(&w, &options);
        let service = w.create("m", behind("a")).await;
        let revision = revision_of(&service);
        w.until_ready_is("m", "True", "Serving").await;
        w.edit::<InferenceService>(
            "m",
            json!({"spec": {"routing": {"provider": "GatewayAPI"}}}),
        )
        .await;
        let route = until_weights(&w, "to the revision", &[(&revision, 100)]).await;
        assert!(route.spec.rules[0].filters.is_empty());
        w.until_ready_is("m", "True", "Serving").await;
        w.edit::<InferenceService>("m", json!({"spec": {"routing": {"provider": "Router"}}}))
            .await;
        w.until_object("to the routers", "m", |route: &HttpRoute| {
            weights(route) == BTreeMap::from([("routers".into(), 1)])
        })
        .await;
        w.until_gone::<Service>(&format!("{revision}-gw")).await;
        let headless: Service = w.get(&revision).await;
        let ip = headless.spec.and_then(|spec| spec.cluster_ip);
        assert_eq!(ip.as_deref(), Some("None"), "the routers' own stayed");
    });
}

#[test]
fn a_route_of_somebody_else_s_is_left_alone() {
    world(async |w| {
        let _api = installed().await;
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let mut theirs = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "m"},
            "spec": {"parentRefs": [{"name": "theirs"}]},
        });
        theirs["metadata"]["namespace"] = json!(w.namespace);
        let params = kube::api::PatchParams::apply("somebody");
        let patch = kube::api::Patch::Apply(&theirs);
        let made = w.api::<HttpRoute>().patch("m", &params, &patch).await;
        let made = made.expect("their route");
        w.create("m", behind("a")).await;
        let service = w.until_ready_is("m", "False", "NameCollision").await;
        let ready = condition(&service, "Ready").expect("a condition");
        assert!(
            ready.message.contains("a HTTPRoute named m exists"),
            "{}",
            ready.message
        );
        let after: HttpRoute = w.get("m").await;
        assert_eq!(after.resource_version(), made.resource_version());
    });
}
