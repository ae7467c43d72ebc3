//! Healthy candidates with much traffic, little, and none; and one whose server dies again and again while requests come.

use std::time::{Duration, Instant};

use ortolan_crds::RolloutPhase;
use ortolan_e2e::{Load, Node, Result, STORE, Service, Test, check, other_model, spec};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    canary::{at_half, canary_spec, phase, weights},
    router::saw_both,
};

/// A service whose next model gets half of the traffic for 20 s and is judged by so many requests.
async fn serving(t: &Test, name: &str, requests: u32, rollout: &Value) -> Result<Service> {
    let mut spec = canary_spec(20);
    spec["rollout"]["analysis"]["minRequests"] = json!(requests);
    for (field, value) in rollout.as_object().into_iter().flatten() {
        spec["rollout"][field] = value.clone();
    }
    let service = t.service(name);
    service.apply(&spec).await?;
    service.until_ready().await?;
    service.until_answers().await?;
    Ok(service)
}

/// So many clients, each of which pauses for so long between two requests.
async fn load(service: &Service, clients: usize, pause_ms: u64) -> Result<Load> {
    let path = format!("/v2/models/{}/infer", service.name);
    let mut order = Load::order(service.url(&path));
    (order.fresh, order.kept, order.pause_ms) = (0, clients, pause_ms);
    Load::start(&service.client, &order).await
}

/// The other model takes over, no request fails, and there were about so many a second.
async fn is_promoted(service: &Service, clients: usize, pause_ms: u64) -> Result<f64> {
    let load = load(service, clients, pause_ms).await?;
    sleep(Duration::from_secs(5)).await;
    service.change(&other_model()).await?;
    service.until_ready().await?;
    let tally = load.tally().await?;
    saw_both(load).await?;
    Ok(tally.sent as f64 / (tally.elapsed_ms as f64 / 1000.0))
}

#[tokio::test]
async fn a_healthy_canary_is_promoted_at_five_and_at_five_hundred_requests_a_second() {
    Test::alone(async |t| {
        let few = serving(t, "few", 20, &Value::Null).await?;
        let many = serving(t, "many", 1000, &Value::Null).await?;
        let (few, many) = tokio::try_join!(is_promoted(&few, 1, 200), is_promoted(&many, 24, 40))?;
        eprintln!("promoted at {few:.1} and at {many:.0} requests a second");
        check((3.0..=5.0).contains(&few) && many > 300.0, || {
            format!("the load was {few:.1} and {many:.0} requests a second")
        })
    })
    .await;
}

#[tokio::test]
async fn without_traffic_a_canary_waits_or_goes_on_by_its_golden_set_as_the_spec_says() {
    Test::run(async |t| {
        let short = |policy: &str| {
            json!({
                "steps": [{"weight": 50, "soak": "1s"}],
                "analysis": {"minRequests": 50, "deadline": "5s", "settle": "10s", "onInconclusive": policy},
            })
        };
        let waits = serving(t, "waits", 50, &Value::Null).await?;
        waits.change(&json!({"rollout": short("Pause")})).await?;
        let goes_on = serving(t, "goes-on", 50, &Value::Null).await?;
        let golden = json!({"uri": format!("{STORE}/bad/golden.jsonl")});
        let mut rollout = short("Continue");
        rollout["validation"] = golden;
        goes_on.change(&json!({"rollout": rollout})).await?;
        // What the golden set asks for is what the first model answers.
        let mut same = spec("bad/identity.onnx");
        same["server"]["threads"] = json!(1);
        waits.change(&other_model()).await?;
        goes_on.change(&json!({"server": same["server"]})).await?;

        let promoted = goes_on.until_ready().await?;
        let status = promoted.status.unwrap_or_default();
        check(status.traffic.len() == 1, || format!("{status:#?}"))?;

        let said = waits.until_reason("Paused").await?;
        check(said.contains("requests"), || said.clone())?;
        sleep(Duration::from_secs(5)).await;
        let still = waits.get().await?;
        check(weights(&still) == [50, 50], || format!("{still:#?}"))?;
        // With requests it goes on by itself.
        let load = load(&waits, 3, 30).await?;
        waits.until_ready().await?;
        saw_both(load).await
    })
    .await;
}

#[tokio::test]
async fn a_candidate_whose_server_dies_again_and_again_under_load_is_taken_back() {
    let Some(node) = Node::here() else {
        println!(
            "skipped: it kills a process of the node, so it needs the single node of e2e/cluster"
        );
        return;
    };
    Test::alone(async |t| {
        let (service, load) = at_half(t, 120).await?;
        let status = service.get().await?.status.unwrap_or_default();
        let candidate = status.rollout.and_then(|rollout| rollout.candidate);
        let candidate = candidate.unwrap_or_default();
        let begun = Instant::now();
        loop {
            let now = service.get().await?;
            if phase(&now) == Some(RolloutPhase::Failed) {
                break;
            }
            check(begun.elapsed() < Duration::from_secs(150), || {
                format!("it still has traffic: {:#?}", now.status)
            })?;
            for pod in service.pods().await? {
                let name = pod.metadata.name.as_deref().unwrap_or("");
                if name.starts_with(&candidate) {
                    // Between two starts there is no process to kill.
                    node.kill_server(&pod).await.ok();
                }
            }
            sleep(Duration::from_secs(5)).await;
        }
        let failed = service.until_reason("RolloutFailed").await?;
        let now = service.get().await?;
        check(weights(&now) == [100], || format!("{now:#?}"))?;
        check(failed.contains("137") || failed.contains("errors"), || {
            failed.clone()
        })?;
        let exposed = load.stop().await?;
        eprintln!(
            "{} of {} requests failed before it was taken back after {} s: {failed}",
            exposed.failed,
            exposed.sent,
            begun.elapsed().as_secs()
        );
        let after = service.load().await?;
        sleep(Duration::from_secs(3)).await;
        let tally = after.stop_without_a_failure().await?;
        check(tally.answers.keys().eq(["1.0"]), || format!("{tally:?}"))
    })
    .await;
}
