//! How many requests a service costs, by the API server's own log.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use ortolan_crds::InferenceService;
use ortolan_tests::{
    Cluster, Fate, Operator, World,
    audit::{self, Mark, Request},
    world::{definition_stays, spec, world},
};
use serde_json::json;

use crate::lifecycle::{revision_of, serving};

/// What the goals allow for one service.
const CREATE: usize = 12;
const CHANGE: usize = 16;
/// On a busy machine pods may be seen one step at a time, and each step costs a status.
const SEEN_APART: usize = 2;

async fn since(mark: Mark, operator: &Operator) -> Vec<Request> {
    // Events are told after the status.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let requests = audit::since(mark, &operator.agent);
    requests.into_iter().filter(|r| !r.is_upkeep()).collect()
}

fn at_most(requests: &[Request], limit: usize, services: usize) {
    let lines: Vec<_> = requests
        .iter()
        .map(|r| format!("{} {} {}", r.code, r.verb, r.uri))
        .collect();
    assert!(!lines.is_empty(), "the log knows of no request");
    assert!(
        lines.len() <= limit * services,
        "{} for {services}: {lines:#?}",
        lines.len()
    );
}

async fn until_promoted(w: &World, service: &InferenceService) {
    w.until_event(&service.name_any(), "Promoted", &revision_of(service))
        .await;
}

#[test]
fn a_service_costs_at_most_twelve_requests_and_a_change_of_it_sixteen() {
    let _undisturbed = definition_stays();
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let operator = Operator::start(&w);
        // Its watches stand.
        until_promoted(&w, &serving(&w, "first", spec("a")).await).await;
        tokio::time::sleep(Duration::from_secs(2)).await;

        let mark = audit::mark();
        let service = serving(&w, "m", spec("a")).await;
        until_promoted(&w, &service).await;
        at_most(&since(mark, &operator).await, CREATE, 1);

        let mark = audit::mark();
        let changed = w
            .edit::<InferenceService>("m", json!({"spec": spec("b")}))
            .await;
        until_promoted(&w, &changed).await;
        w.until_gone::<Deployment>(&revision_of(&service)).await;
        w.until_service("the old revision leaves the status", "m", |s| {
            s.status.as_ref().is_some_and(|s| s.revisions.len() == 1)
        })
        .await;
        let requests = since(mark, &operator).await;
        at_most(&requests, CHANGE + SEEN_APART, 1);
        let others = |r: &&Request| !r.uri.contains("/status");
        let others: Vec<_> = requests.iter().filter(others).cloned().collect();
        at_most(&others, CHANGE - 5, 1);
    });
}

#[test]
fn twenty_services_at_once_cost_no_more_each() {
    let _undisturbed = definition_stays();
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let operator = Operator::start(&w);
        until_promoted(&w, &serving(&w, "first", spec("a")).await).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mark = audit::mark();
        for n in 0..20 {
            w.create(&format!("m{n}"), spec("a")).await;
        }
        for n in 0..20 {
            let service = w.until_ready_is(&format!("m{n}"), "True", "Serving").await;
            until_promoted(&w, &service).await;
        }
        at_most(&since(mark, &operator).await, CREATE, 20);
    });
}
