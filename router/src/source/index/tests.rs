use serde_json::json;

use super::*;

fn cats() -> ServiceName {
    ServiceName::new("demo", "cats").unwrap()
}

fn service(traffic: &[(&str, i32)]) -> Watched {
    let traffic: Vec<_> = traffic
        .iter()
        .map(|(revision, weight)| json!({"revision": revision, "weight": weight}))
        .collect();
    serde_json::from_value(json!({
        "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
        "metadata": {"name": "cats", "namespace": "demo"},
        "spec": {"model": {"uri": "file:///m"}, "server": {"maxConcurrency": 8, "threads": 1}},
        "status": {"traffic": traffic, "observedGeneration": 3},
    }))
    .unwrap()
}

fn slice(name: &str, revision: &str, endpoints: &[(&str, bool)]) -> EndpointSlice {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(address, ready)| json!({"addresses": [address], "conditions": {"ready": ready, "serving": true, "terminating": !ready}}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "demo", "labels": {
            "serving.ortolan.dev/service": "cats", "serving.ortolan.dev/revision": revision}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "metrics", "port": 9090}, {"name": "http", "port": 8080}],
    }))
    .unwrap()
}

#[test]
fn a_pod_that_is_not_ready_is_none_although_its_service_publishes_it() {
    let conditions = |ready: bool, serving: bool, terminating: bool| {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {}, "addressType": "IPv4", "ports": [{"port": 8080}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions":
                {"ready": ready, "serving": serving, "terminating": terminating}}],
        }))
        .unwrap();
        let one = endpoints(&slice)[0];
        (one.ready, one.serving, one.terminating)
    };
    // As Kubernetes says it with publishNotReadyAddresses: starting, ready, ending and still serving, ending.
    assert_eq!(conditions(true, false, false), (false, false, false));
    assert_eq!(conditions(true, true, false), (true, true, false));
    assert_eq!(conditions(true, true, true), (false, true, true));
    assert_eq!(conditions(true, false, true), (false, false, true));
}

fn weights_and_pods(index: &Index) -> Vec<(u8, Vec<String>)> {
    let service = index.entry(&cats(), &Settings::default()).unwrap();
    let pods = |revision: &Revision| {
        revision
            .endpoints
            .iter()
            .map(|one| format!("{}{}", one.address, if one.ready { "" } else { " leaving" }))
            .collect()
    };
    service
        .revisions
        .iter()
        .map(|revision| (revision.weight.get(), pods(revision)))
        .collect()
}

#[test]
fn a_service_is_its_traffic_with_the_pods_of_its_revisions() {
    let mut index = Index::default();
    index.service(Event::Init);
    index.service(Event::InitApply(service(&[("cats-1", 90), ("cats-2", 10)])));
    assert!(
        index.entry(&cats(), &Settings::default()).is_none(),
        "the listing is not complete"
    );
    assert_eq!(index.service(Event::InitDone), BTreeSet::from([cats()]));
    assert!(!index.is_complete());
    index.slice(Event::Init);
    index.slice(Event::InitApply(slice(
        "a",
        "cats-1",
        &[("10.0.0.1", true), ("10.0.0.2", false)],
    )));
    index.slice(Event::InitApply(slice(
        "b",
        "cats-1",
        &[("10.0.0.2", true)],
    )));
    index.slice(Event::InitApply(slice("c", "gone", &[("10.0.0.9", true)])));
    assert_eq!(index.slice(Event::InitDone), BTreeSet::from([cats()]));
    assert!(index.is_complete());
    let pods = vec!["10.0.0.1:8080".to_owned(), "10.0.0.2:8080".to_owned()];
    assert_eq!(weights_and_pods(&index), [(90, pods), (10, vec![])]);
    let entry = index.entry(&cats(), &Settings::default()).unwrap();
    assert_eq!(entry.revisions[0].max_concurrency, NonZeroU32::new(8));
}

fn changed(path: &str, value: serde_json::Value) -> Watched {
    let mut object = json!({
        "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
        "metadata": {"name": "cats", "namespace": "demo"},
        "spec": {"model": {"uri": "file:///m"}, "routing": {"timeout": "1m"}},
        "status": {"traffic": [{"revision": "cats-1", "weight": 100}, {"revision": "cats-2", "weight": 0}],
            "revisions": [{"name": "cats-1", "phase": "Serving", "model": {"version": "1", "opset": 17}},
                {"name": "cats-2", "phase": "Starting"}]},
    });
    *object.pointer_mut(path).unwrap() = value;
    serde_json::from_value(object).unwrap()
}

#[test]
fn routing_and_versions_are_followed_and_what_cannot_be_used_is_the_routers_own() {
    let mut index = Index::default();
    let mut seen = |object: Watched| {
        let touched = index.service(Event::Apply(object)).len();
        let service = index.entry(&cats(), &Settings::default()).unwrap();
        let versions = service.revisions.into_iter().map(|one| one.versions);
        let timeout = service.routing.timeout.as_secs();
        (touched, timeout, versions.collect::<Vec<_>>())
    };
    let same = json!({"name": "cats", "namespace": "demo"});
    let one = vec!["1".to_owned()];
    let first = changed("/metadata", same.clone());
    assert_eq!(seen(first), (1, 60, vec![one.clone(), vec![]]));
    let again = changed("/metadata", same);
    assert_eq!(seen(again).0, 0, "nothing that matters has changed");
    let second = json!({"name": "cats-2", "model": {"version": "2024-01"}});
    let told = changed("/status/revisions/1", second);
    assert_eq!(seen(told).2, vec![one, vec!["2024-01".to_owned()]]);
    for (wrong, seconds) in [
        (json!({"timeout": "1d"}), 30),
        (json!({"timeout": 7, "retries": "x"}), 30),
        (json!("fast"), 30),
        (json!({"timeout": "2m", "balancing": {"kind": "Ring"}}), 120),
    ] {
        let written = changed("/spec/routing", wrong.clone());
        let (touched, timeout, _) = seen(written);
        assert_eq!((touched, timeout), (1, seconds), "{wrong}");
    }
}

#[test]
fn a_new_generation_of_the_same_traffic_is_a_change() {
    let mut index = Index::default();
    let mut service = service(&[("cats-1", 100)]);
    index.service(Event::Apply(service.clone()));
    let generation = |index: &Index| {
        let entry = index.entry(&cats(), &Settings::default());
        entry.unwrap().generation
    };
    assert_eq!(generation(&index), None);
    for (written, read) in [(Some(4), Some(4)), (Some(-1), None), (None, None)] {
        service.status.as_mut().unwrap().rollout = Some(Rollout {
            generation: written,
            shadow: None,
        });
        let touched = index.service(Event::Apply(service.clone()));
        assert_eq!(
            (touched.len(), generation(&index)),
            (usize::from(written.is_some()), read)
        );
    }
}

#[test]
fn what_changes_is_told_and_what_does_not_is_not() {
    let mut index = Index::default();
    let touched = |changed: BTreeSet<ServiceName>| changed.len();
    assert_eq!(
        touched(index.service(Event::Apply(service(&[("cats-1", 100)])))),
        1
    );
    assert_eq!(
        touched(index.service(Event::Apply(service(&[("cats-1", 100)])))),
        0
    );
    assert_eq!(
        touched(index.slice(Event::Apply(slice("a", "cats-1", &[("10.0.0.1", true)])))),
        1
    );
    assert_eq!(
        touched(index.slice(Event::Apply(slice("a", "cats-1", &[("10.0.0.1", true)])))),
        0
    );
    assert_eq!(
        touched(index.slice(Event::Apply(slice("a", "cats-1", &[("10.0.0.1", false)])))),
        1
    );
    assert_eq!(
        weights_and_pods(&index),
        [(100, vec!["10.0.0.1:8080 leaving".to_owned()])]
    );
    assert_eq!(
        touched(index.slice(Event::Delete(slice("a", "cats-1", &[])))),
        1
    );
    assert_eq!(weights_and_pods(&index), [(100, vec![])]);
    let mut foreign = slice("b", "cats-1", &[("10.0.0.1", true)]);
    foreign.metadata.labels = None;
    assert_eq!(touched(index.slice(Event::Apply(foreign))), 0);
    assert_eq!(touched(index.service(Event::Delete(service(&[])))), 1);
    assert!(index.entry(&cats(), &Settings::default()).is_none());
    assert!(index.by_service.is_empty());
}

#[test]
fn a_new_listing_tells_only_of_what_is_not_as_before() {
    let mut index = Index::default();
    index.service(Event::Apply(service(&[("cats-1", 100)])));
    index.slice(Event::Apply(slice("a", "cats-1", &[("10.0.0.1", true)])));
    for (listed, expected) in [(vec![("10.0.0.1", true)], 0), (vec![("10.0.0.2", true)], 1)] {
        index.slice(Event::Init);
        index.slice(Event::InitApply(slice("a", "cats-1", &listed)));
        assert_eq!(
            weights_and_pods(&index)[0].1.len(),
            1,
            "as before until it is complete"
        );
        assert_eq!(index.slice(Event::InitDone).len(), expected);
    }
    index.slice(Event::Init);
    assert_eq!(index.slice(Event::InitDone).len(), 1);
    assert_eq!(weights_and_pods(&index), [(100, vec![])]);
}

#[test]
fn a_shadow_has_the_pods_of_its_revision_as_long_as_that_has_no_requests() {
    let mut index = Index::default();
    index.slice(Event::Apply(slice("b", "cats-2", &[("10.0.0.2", true)])));
    for (traffic, pods) in [
        (&[("cats-1", 100)][..], &["10.0.0.2:8080"][..]),
        (&[("cats-1", 95), ("cats-2", 5)], &[]),
    ] {
        let mut service = service(traffic);
        let shadow = json!({"revision": "cats-2", "percent": 10, "compare": {"kind": "Exact"}});
        service.status.as_mut().unwrap().rollout = Some(Rollout {
            generation: Some(4),
            shadow: Some(shadow),
        });
        index.service(Event::Apply(service));
        let entry = index.entry(&cats(), &Settings::default()).unwrap();
        let mirror = entry.mirror.unwrap();
        let had: Vec<String> = mirror
            .endpoints
            .iter()
            .map(|one| one.address.to_string())
            .collect();
        assert_eq!(
            (&*mirror.revision, &had[..]),
            (
                "cats-2",
                &pods.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()[..]
            )
        );
        assert_eq!(entry.revisions.len(), traffic.len());
    }
}
