//! Which pod gets a request, where the service says how.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use http::Request;
use support::{Client, Pod, Router, cats, list};

async fn three() -> [Pod; 3] {
    [
        Pod::start("a").await,
        Pod::start("b").await,
        Pod::start("c").await,
    ]
}

fn routed(pods: &[SocketAddr], balancing: &str) -> String {
    cats(
        &[("cats-1", 100, pods)],
        &format!("balancing: {{{balancing}}}"),
    )
}

#[tokio::test]
async fn round_robin_goes_to_each_pod_in_turn_and_a_change_of_it_loses_no_request() {
    let pods = three().await;
    let all: Vec<SocketAddr> = pods.iter().map(|pod| pod.address).collect();
    let router = Router::start(&routed(&all, "kind: RoundRobin"), &[]);
    let mut client = Client::new(router.http, "cats.demo");
    let mut order = Vec::new();
    for _ in 0..30 {
        order.push(client.get("/v2").await.unwrap().pod());
    }
    for three in order.windows(3) {
        let seen: BTreeSet<&String> = three.iter().collect();
        assert_eq!(seen.len(), 3, "{order:?}");
    }
    // While requests go on, the kind changes, a pod goes, and the kind changes back.
    let (http, stop) = (router.http, std::sync::Arc::new(tokio::sync::Notify::new()));
    let stopped = std::sync::Arc::clone(&stop);
    let load = tokio::spawn(async move {
        let mut client = Client::new(http, "cats.demo");
        let mut codes = BTreeMap::<u16, usize>::new();
        let mut stop = std::pin::pin!(stopped.notified());
        loop {
            let answered = tokio::select! {
                answer = client.get("/v2?sleep=1") => answer.unwrap(),
                () = &mut stop => return codes,
            };
            *codes.entry(answered.code).or_default() += 1;
        }
    });
    let by_header = "kind: Consistent, header: x-user";
    for state in [
        routed(&all, by_header),
        routed(&all[..2], by_header),
        routed(&all[..2], "kind: RoundRobin"),
        routed(&all, "kind: LeastRequest"),
    ] {
        router.change(&state).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    stop.notify_one();
    let codes = load.await.unwrap();
    assert!(
        codes.len() == 1 && codes.get(&200).is_some_and(|n| *n > 50),
        "{codes:?}"
    );
}

#[tokio::test]
async fn the_same_value_of_a_header_goes_to_the_same_pod_on_every_router_while_it_has_room() {
    let pods = three().await;
    let all: Vec<SocketAddr> = pods.iter().map(|pod| pod.address).collect();
    let state = routed(&all, "kind: Consistent, header: x-user");
    let routers = [Router::start(&state, &[]), Router::start(&state, &[])];
    let mut chosen = BTreeMap::new();
    for user in 0..60 {
        let mut seen = BTreeSet::new();
        for router in &routers {
            for _ in 0..3 {
                let request = Request::get("/v2").header("X-User", format!("user {user}"));
                let mut client = Client::new(router.http, "cats.demo");
                seen.insert(client.send(request, "").await.unwrap().pod());
            }
        }
        assert_eq!(seen.len(), 1, "user {user}: {seen:?}");
        *chosen.entry(seen.pop_first().unwrap()).or_insert(0) += 1;
    }
    assert!(
        chosen.len() == 3 && chosen.values().all(|n| *n >= 8),
        "{chosen:?}"
    );
    // Who says nothing is balanced as by default.
    let mut without = BTreeSet::new();
    for _ in 0..40 {
        without.insert(routers[0].get("cats.demo", "/v2").await.pod());
    }
    assert_eq!(without.len(), 3);
}

#[tokio::test]
async fn a_pod_that_is_full_gives_the_requests_of_a_header_to_the_next() {
    let pods = three().await;
    let all: Vec<SocketAddr> = pods.iter().map(|pod| pod.address).collect();
    let state = format!(
        "services: {{demo/cats: {{routing: {{balancing: {{kind: Consistent, header: x-user}}}}, \
         revisions: [{{name: cats-1, weight: 100, maxConcurrency: 2, endpoints: {}}}]}}}}",
        list(&all)
    );
    let router = Router::start(&state, &[]);
    let asked = (0..6).map(|_| {
        let address = router.http;
        async move {
            let request = Request::get("/v2?sleep=400").header("x-user", "one");
            let mut client = Client::new(address, "cats.demo");
            client.send(request, "").await.unwrap().pod()
        }
    });
    let mut got = BTreeMap::new();
    for pod in futures::future::join_all(asked).await {
        *got.entry(pod).or_insert(0) += 1;
    }
    assert_eq!(
        got.values().copied().collect::<Vec<i32>>(),
        [2, 2, 2],
        "{got:?}"
    );
}
