//! Two operators, one Lease: one leads, another takes over, and who lost the Lease never writes again.

use std::time::{Duration, Instant};

use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use ortolan_crds::InferenceService;
use ortolan_tests::{
    Cluster, Fate, Process, World,
    world::{spec, world},
};
use serde_json::json;

use crate::lifecycle::{revision_of, serving};

/// Until another may take a Lease that is not renewed (15 s), and one look more (2 s), and a margin.
const TAKEOVER: Duration = Duration::from_secs(20);

/// The pod that holds the Lease, from the identity of its holder.
async fn leader(w: &World, not: &str) -> String {
    let what = format!("somebody but {not:?} leads");
    w.until(&what, async || {
        let lease = w.api::<Lease>().get_opt("ortolan-operator").await;
        let lease = lease
            .map_err(|e| e.to_string())?
            .ok_or("there is no Lease")?;
        let holder = lease
            .spec
            .and_then(|spec| spec.holder_identity)
            .unwrap_or_default();
        let pod = holder.split('_').next().unwrap_or_default().to_owned();
        if pod.is_empty() || pod == not {
            return Err(format!("the holder is {holder:?}"));
        }
        Ok(pod)
    })
    .await
}

/// The image that a new revision got: each candidate's is named after itself, so it tells who made it.
async fn maker(w: &World, name: &str) -> String {
    let service: InferenceService = w.get(name).await;
    let deployment: Deployment = w.get(&revision_of(&service)).await;
    let pod = deployment.spec.and_then(|spec| spec.template.spec);
    pod.and_then(|pod| pod.containers[0].image.clone())
        .unwrap_or_default()
}

/// Two candidates, the leader first.
async fn two(w: &World) -> (Process, Process) {
    let a = Process::candidate(w, "a");
    let b = Process::candidate(w, "b");
    let (first, second) = if leader(w, "").await == "a" {
        (a, b)
    } else {
        (b, a)
    };
    serving(w, "one", spec("one")).await;
    assert_eq!(maker(w, "one").await, first.pod);
    (first, second)
}

#[test]
fn a_leader_that_is_killed_is_followed_by_another() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let (first, second) = two(&w).await;
        first.signal("KILL");
        let killed = Instant::now();
        assert_eq!(leader(&w, &first.pod).await, second.pod);
        assert!(killed.elapsed() < TAKEOVER, "{:?}", killed.elapsed());
        serving(&w, "two", spec("two")).await;
        assert_eq!(maker(&w, "two").await, second.pod);
    });
}

#[test]
fn a_leader_that_was_frozen_does_not_write_when_it_wakes() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let (first, second) = two(&w).await;
        first.signal("STOP");
        let frozen = Instant::now();
        assert_eq!(leader(&w, &first.pod).await, second.pod);
        assert!(frozen.elapsed() < TAKEOVER, "{:?}", frozen.elapsed());
        // The new leader is stopped too, so that the work is left to whoever thinks that it leads.
        second.signal("STOP");
        let names = ["two", "three", "four", "five"];
        for name in names {
            w.create(name, spec(name)).await;
        }
        first.signal("CONT");
        tokio::time::sleep(Duration::from_secs(5)).await;
        for name in names {
            let service: InferenceService = w.get(name).await;
            let why = "the first no longer leads, and leaves it alone";
            assert_eq!(service.status, None, "{why}");
        }
        second.signal("CONT");
        w.until_ready_is("two", "True", "Serving").await;
        let lost = first.log().contains("the lease is no longer ours");
        assert!(lost, "the first knows that it lost the Lease");
    });
}

#[test]
fn a_leader_that_is_told_to_end_hands_the_lease_over_at_once() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let (mut first, second) = two(&w).await;
        first.signal("TERM");
        let told = Instant::now();
        assert_eq!(leader(&w, &first.pod).await, second.pod);
        assert!(
            told.elapsed() < Duration::from_secs(5),
            "{:?}",
            told.elapsed()
        );
        assert!(first.ended().await, "it ends with code 0");
        w.edit::<InferenceService>("one", json!({"spec": spec("two")}))
            .await;
        w.until_ready_is("one", "True", "Serving").await;
        assert_eq!(maker(&w, "one").await, second.pod);
    });
}
