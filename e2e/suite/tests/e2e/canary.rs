//! Canaries on a real cluster, under load: a good revision is promoted, a bad one is taken back with the reason that a
//! person needs. These tests stand alone: what is slow must be the candidate, not the machine.

use std::time::Duration;

use ortolan_crds::{InferenceService, RolloutPhase};
use ortolan_e2e::{Load, Result, STORE, Service, Test, check, kubectl_in, other_model, spec};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::router::saw_both;

/// Half of the traffic for so many seconds, then all of it for ten.
fn canary(seconds: u32) -> Value {
    json!({
        "steps": [{"weight": 50, "soak": format!("{seconds}s")}],
        "analysis": {"minRequests": 50, "confidence": 0.95, "settle": "10s"},
    })
}

/// A tiny service whose next model gets half of the traffic for so many seconds, and then all of it.
pub(crate) fn canary_spec(seconds: u32) -> Value {
    let mut spec = spec("bad/identity.onnx");
    spec["rollout"] = canary(seconds);
    spec
}

pub(crate) fn phase(service: &InferenceService) -> Option<RolloutPhase> {
    Some(service.status.as_ref()?.rollout.as_ref()?.phase)
}

/// The shares, the stable revision's first.
pub(crate) fn weights(service: &InferenceService) -> Vec<i32> {
    let status = service.status.iter();
    status
        .flat_map(|status| &status.traffic)
        .map(|share| share.weight)
        .collect()
}

/// A tiny service under load whose candidate has just got half of the traffic, for so many seconds.
pub(crate) async fn at_half(t: &Test, seconds: u32) -> Result<(Service, Load)> {
    let service = t.serving(&canary_spec(seconds)).await?;
    let load = service.load().await?;
    // What is slow is known from what the stable revision did.
    sleep(Duration::from_secs(5)).await;
    service.change(&other_model()).await?;
    service
        .until("half of the traffic", 60, |s| weights(s) == [50, 50])
        .await?;
    Ok((service, load))
}

async fn told(service: &Service, reason: &str) -> Result {
    let what = ["get", "events", "-o", "jsonpath={.items[*].reason}"];
    let reasons = kubectl_in(&service.namespace, &what).await?;
    check(
        reasons.split_whitespace().any(|word| word == reason),
        || format!("no event {reason}: {reasons}"),
    )
}

async fn until_told(service: &Service, reason: &str) -> Result {
    for _ in 0..60 {
        if told(service, reason).await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(500)).await;
    }
    told(service, reason).await
}

/// A candidate, why it must fail, and the least number of its requests that may be bad.
struct Bad {
    name: &'static str,
    change: Value,
    reasons: &'static [&'static str],
    says: &'static str,
    has_traffic: bool,
}

impl Bad {
    async fn is_taken_back(&self, t: &Test) -> Result<String> {
        let service = t.service(self.name);
        service.apply(&canary_spec(120)).await?;
        service.until_ready().await?;
        service.until_answers().await?;
        let load = service.varied_load().await?;
        // What is slow is known from what the stable revision did.
        sleep(Duration::from_secs(5)).await;
        service.change(&self.change).await?;
        let failed = service
            .until("its rollout has failed", 150, |service| {
                phase(service) == Some(RolloutPhase::Failed)
            })
            .await?;
        let exposed = load.tally().await?;
        let status = failed.status.clone().unwrap_or_default();
        let rollout = status.rollout.clone().unwrap_or_default();
        check(weights(&failed) == [100], || format!("{status:#?}"))?;
        let reason = rollout.reason.clone().unwrap_or_default();
        let message = rollout.message.clone().unwrap_or_default();
        check(self.reasons.contains(&&*reason), || {
            format!("{reason}: {message}")
        })?;
        check(message.contains(self.says), || message.clone())?;
        told(&service, &reason).await?;
        let ready = service.until_reason("RolloutFailed").await?;
        let seen = exposed.answers.keys().any(|answer| answer != "4.0");
        check(!self.has_traffic || seen || exposed.failed > 0, || {
            format!("the candidate answered nothing: {exposed:?}")
        })?;
        // Whatever is asked from now on, the stable revision answers.
        let after = service.varied_load().await?;
        sleep(Duration::from_secs(3)).await;
        let tally = after.stop_without_a_failure().await?;
        check(tally.answers.keys().eq(["4.0"]), || format!("{tally:?}"))?;
        load.stop().await?;
        Ok(format!(
            "{}: {} of {} requests bad before it was taken back: {ready}",
            self.name, exposed.failed, exposed.sent
        ))
    }
}

fn model(name: &str) -> Value {
    json!({"model": spec(&format!("bad/{name}.onnx"))["model"]})
}

/// The other model, which answers quickly, with 200 and wrong, as far as this golden set goes.
fn with_golden_set(file: &str) -> Value {
    let mut change = other_model();
    change["rollout"] = json!({"validation": {"uri": format!("{STORE}/bad/{file}")}});
    change
}

/// The other model, whose answers to copies of the requests are compared before it gets any of its own.
fn compared() -> Value {
    let mut change = other_model();
    change["rollout"] = json!({"shadow": {"percent": 50, "compare": {"kind": "Exact"}}});
    change
}

#[tokio::test]
async fn a_canary_that_fails_is_slow_wrong_dies_or_is_of_another_signature_is_taken_back_and_says_why()
 {
    Test::alone(async |t| {
        let mut hungry = model("hungry");
        hungry["server"] = json!({"resources": {"limits": {"memory": "200Mi"}}});
        let bad = [
            Bad {
                name: "picky",
                change: model("picky"),
                reasons: &["EvidenceAgainst"],
                says: "errors and timeouts: ",
                has_traffic: true,
            },
            Bad {
                name: "slow",
                change: model("slow"),
                reasons: &["EvidenceAgainst"],
                // Of its requests, or of the runs in its pods: whichever is sure first.
                says: "slower than the stable revision's 95th percentile: ",
                has_traffic: true,
            },
            Bad {
                name: "hungry",
                change: hungry,
                reasons: &["OOMKilled", "CandidateFails", "EvidenceAgainst"],
                says: "",
                // It may die of its first request, which the stable revision then answers.
                has_traffic: false,
            },
            Bad {
                name: "wrong",
                change: with_golden_set("golden.jsonl"),
                reasons: &["ValidationFailed"],
                says: "0 of 10 answers agree with the golden set",
                has_traffic: false,
            },
            Bad {
                name: "compared",
                change: compared(),
                reasons: &["CandidateFails", "EvidenceAgainst"],
                says: "answers that differ from the stable revision's: ",
                has_traffic: false,
            },
            Bad {
                name: "malformed",
                change: with_golden_set("golden-malformed.jsonl"),
                reasons: &["ValidationFailed"],
                says: "line 11 of the golden set",
                has_traffic: false,
            },
            Bad {
                name: "wide",
                change: model("wide"),
                reasons: &["SignatureIncompatible"],
                says: "the input \"x\" has the shape [-1, 5], not [-1, 4]",
                has_traffic: false,
            },
        ];
        let all = bad.iter().map(|bad| bad.is_taken_back(t));
        for line in futures::future::try_join_all(all).await? {
            eprintln!("{line}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_good_canary_is_promoted_under_load_and_the_old_revision_comes_back_at_once() {
    Test::alone(async |t| {
        let mut validated = canary_spec(15);
        let set = json!({"uri": format!("{STORE}/bad/golden.jsonl")});
        validated["rollout"]["validation"] = set;
        // Validated from its first revision on.
        let service = t.serving(&validated).await?;
        service
            .change(&json!({"rollout": {"validation": null}}))
            .await?;
        let load = service.load().await?;
        sleep(Duration::from_secs(3)).await;
        let old = service.get().await?.status.unwrap_or_default();
        service.change(&other_model()).await?;
        service
            .until("half of the traffic", 60, |s| weights(s) == [50, 50])
            .await?;
        let seen = load.tally().await?;
        service.until_ready().await?;
        told(&service, "Promoted").await?;
        saw_both(load).await?;
        check(!seen.answers.is_empty(), || format!("{seen:?}"))?;

        // The old revision is kept: a change back needs no step and no new pod.
        let load = service.load().await?;
        let model = spec("bad/identity.onnx")["model"].clone();
        service.change(&json!({"model": model})).await?;
        let back = service.until_ready().await?;
        let status = back.status.unwrap_or_default();
        check(status.traffic == old.traffic, || format!("{status:#?}"))?;
        saw_both(load).await
    })
    .await;
}

#[tokio::test]
async fn a_canary_that_waits_for_approval_obeys_commands_and_stands_still_when_paused() {
    Test::alone(async |t| {
        let mut spec = canary_spec(0);
        spec["rollout"]["approval"] = json!("Manual");
        spec["rollout"]["analysis"]["minRequests"] = json!(0);
        let service = t.serving(&spec).await?;
        let load = service.load().await?;
        service.change(&other_model()).await?;
        let waits = service.until_reason("AwaitingApproval").await?;
        check(waits.contains("waits for `promote`"), || waits.clone())?;
        let status = service.get().await?.status.unwrap_or_default();
        let candidate = status.rollout.and_then(|rollout| rollout.candidate);
        let candidate = candidate.unwrap_or_default();
        let command = async |words: &str| {
            let command = format!("serving.ortolan.dev/command={words}");
            let line = ["annotate", "--overwrite", "oisvc", &service.name, &command];
            kubectl_in(&service.namespace, &line).await
        };
        command("promote somebody-else 1").await?;
        // A command that is written over another one before the operator looks takes its place.
        until_told(&service, "CommandRefused").await?;
        command(&format!("pause {candidate} 2")).await?;
        service.until_reason("Paused").await?;
        command(&format!("resume {candidate} 3")).await?;
        service.until_reason("AwaitingApproval").await?;
        command(&format!("promote {candidate} 4")).await?;
        let ready = service.until_ready().await?;
        let status = ready.status.unwrap_or_default();
        check(
            status.traffic[0].revision == candidate && status.traffic.len() == 1,
            || format!("{status:#?}"),
        )?;
        saw_both(load).await
    })
    .await;
}
