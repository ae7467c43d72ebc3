use serde_json::{Value, json};

use super::*;

fn condition(kind: &str, status: &str, generation: i64) -> Value {
    json!({"type": kind, "status": status, "reason": format!("{kind}{status}"), "message": "its words",
        "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn parent(reference: Value, conditions: &[Value]) -> Value {
    json!({"parentRef": reference, "controllerName": "example.com/gateway", "conditions": conditions})
}

/// Of generation 3, for these Gateways, with these words.
fn route(parents: Value, said: &[Value]) -> HttpRoute {
    serde_json::from_value(json!({
        "metadata": {"name": "m", "namespace": "ns", "uid": "u", "generation": 3},
        "spec": {"parentRefs": parents, "rules": []}, "status": {"parents": said},
    }))
    .expect("a route")
}

fn good(generation: i64) -> [Value; 2] {
    ["Accepted", "ResolvedRefs"].map(|kind| condition(kind, "True", generation))
}

#[test]
fn a_route_is_accepted_when_every_gateway_has_taken_this_generation_and_its_backends() {
    let one = json!([{"name": "a"}]);
    let two = json!([{"name": "a"}, {"name": "b", "namespace": "infra", "sectionName": "web", "port": 80}]);
    let b = json!({"name": "b", "namespace": "infra", "sectionName": "web", "port": 80});
    let full = json!({"group": GROUP, "kind": "Gateway", "namespace": "ns", "name": "a"});
    let a = json!({"name": "a"});
    let old = condition("Accepted", "False", 2);
    let cases = [
        ("nobody looked", &one, vec![], "pending ns/a"),
        ("taken", &one, vec![parent(a.clone(), &good(3))], "accepted"),
        (
            "its defaults are written out",
            &one,
            vec![parent(full, &good(3))],
            "accepted",
        ),
        (
            "an older generation was taken",
            &one,
            vec![parent(a.clone(), &good(2))],
            "pending ns/a",
        ),
        (
            "an older generation was refused",
            &one,
            vec![parent(a.clone(), std::slice::from_ref(&old))],
            "pending ns/a",
        ),
        (
            "an old controller's words are left over",
            &one,
            vec![parent(a.clone(), &[old]), parent(a.clone(), &good(3))],
            "accepted",
        ),
        (
            "its backends are not looked at",
            &one,
            vec![parent(a.clone(), &good(3)[..1])],
            "pending ns/a",
        ),
        (
            "one of two",
            &two,
            vec![parent(a.clone(), &good(3))],
            "pending infra/b (listener web)",
        ),
        (
            "another listener's words",
            &two,
            vec![
                parent(a.clone(), &good(3)),
                parent(json!({"name": "b", "namespace": "infra"}), &good(3)),
            ],
            "pending infra/b (listener web)",
        ),
        (
            "both",
            &two,
            vec![parent(a.clone(), &good(3)), parent(b.clone(), &good(3))],
            "accepted",
        ),
        (
            "a refusal is told before what is open",
            &two,
            vec![parent(b, &[condition("Accepted", "False", 3)])],
            "infra/b (listener web) Accepted AcceptedFalse",
        ),
        (
            "a backend that is not found",
            &one,
            vec![parent(
                a.clone(),
                &[
                    condition("Accepted", "True", 3),
                    condition("ResolvedRefs", "False", 3),
                ],
            )],
            "ns/a ResolvedRefs ResolvedRefsFalse",
        ),
        (
            "not decided",
            &one,
            vec![parent(a, &[condition("Accepted", "Unknown", 3)])],
            "pending ns/a",
        ),
    ];
    for (what, parents, said, expected) in cases {
        let got = match verdict(&route(parents.clone(), &said)) {
            Verdict::Accepted => "accepted".into(),
            Verdict::Pending { gateway } => format!("pending {gateway}"),
            Verdict::Refused {
                gateway,
                condition,
                reason,
                ..
            } => format!("{gateway} {condition} {reason}"),
        };
        assert_eq!(got, expected, "{what}");
    }
}

#[test]
fn routes_are_followed_when_they_have_been_settled_just_as_they_are_for_the_margin() {
    let a = json!({"name": "a"});
    let one = json!([{"name": "a"}]);
    let refused = [condition("Accepted", "False", 3)];
    let with = |http: &[Value], grpc: &[Value]| Routes {
        http: vec![route(one.clone(), &[parent(a.clone(), http)])],
        grpc: vec![
            serde_json::from_value(
                serde_json::to_value(route(one.clone(), &[parent(a.clone(), grpc)])).expect("JSON"),
            )
            .expect("a route"),
        ],
        ..Routes::default()
    };
    assert_eq!(
        with(&good(3), &good(3)).fingerprint().as_deref(),
        Some("u@3 u@3 ")
    );
    assert!(
        with(&good(3), &refused).fingerprint().is_some(),
        "nothing goes by a GRPCRoute that is refused"
    );
    assert_eq!(with(&refused, &good(3)).fingerprint(), None);
    assert_eq!(with(&good(2), &good(3)).fingerprint(), None);
    assert_eq!(with(&good(3), &good(2)).fingerprint(), None);
    for (settled, followed) in [(None, false), (Some(2), false), (Some(3), true)] {
        let routes = Routes {
            settled: settled.map(Duration::from_secs),
            ..Routes::default()
        };
        assert_eq!(routes.are_followed(), followed);
    }
}
