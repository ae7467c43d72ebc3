//! Revisions that cannot serve: what is said of them, and that they never replace one that does.

use ortolan_e2e::{Result, STORE, Service, Test, check, spec};
use serde_json::{Value, json};

/// A spec that cannot serve.
struct Bad {
    name: &'static str,
    spec: Value,
    reason: &'static str,
    /// What the sentence has to name.
    words: &'static str,
    /// Whether trying again cannot help.
    for_good: bool,
}

fn bad(
    name: &'static str,
    spec: Value,
    reason: &'static str,
    words: &'static str,
    for_good: bool,
) -> Bad {
    Bad {
        name,
        spec,
        reason,
        words,
        for_good,
    }
}

/// Files that are no model for this runtime, or not the one that was meant.
fn files() -> Vec<Bad> {
    let nothing = format!("sha256:{}", "0".repeat(64));
    let mut pinned = spec("bad/identity.onnx");
    pinned["model"]["digest"] = nothing.into();
    let of = |file: &str| spec(&format!("bad/{file}"));
    vec![
        bad("digest", pinned, "DigestMismatch", "sha256:00000000", true),
        bad(
            "truncated",
            of("truncated.onnx"),
            "InvalidModel",
            "truncated",
            true,
        ),
        bad("page", of("page.onnx"), "InvalidModel", "HTML page", true),
        bad("opset", of("future-opset.onnx"), "InvalidModel", "99", true),
        bad(
            "operator",
            of("custom-op.onnx"),
            "InvalidModel",
            "com.example",
            true,
        ),
        bad("evil", of("evil.tar"), "ArchiveRefused", "..", true),
    ]
}

/// What may be put right outside: the store, the registry; and a memory limit.
fn surroundings() -> Vec<Bad> {
    let mut image = spec("bad/identity.onnx");
    image["server"]["image"] = "localhost/ortolan/nothing:none".into();
    let mut large = spec("bad/large.tar.gz");
    large["server"]["resources"]["limits"]["memory"] = "200Mi".into();
    let mut disk = spec("efficientnet-lite0.tar.gz");
    disk["server"]["resources"]["limits"]["ephemeral-storage"] = "24Mi".into();
    let private = spec("private/bad/identity.onnx");
    let host = spec("http://models.invalid/m.onnx");
    vec![
        bad(
            "missing",
            spec("bad/nothing.onnx"),
            "ModelNotFound",
            "404",
            false,
        ),
        bad(
            "disk",
            disk,
            "OutOfSpace",
            "all together may take 24.0 MiB",
            false,
        ),
        bad("private", private, "AccessDenied", "401", false),
        bad("host", host, "StoreUnavailable", "models.invalid", false),
        bad(
            "image",
            image,
            "ImagePullFailed",
            "localhost/ortolan/nothing:none",
            false,
        ),
        bad(
            "memory",
            large,
            "OOMKilled",
            "its memory limit of 200Mi",
            false,
        ),
    ]
}

/// The first start: `Ready` is False with the cause, and `Stalled` is there where waiting is of no use.
async fn the_cause_is_told(service: &Service, bad: &Bad) -> Result {
    let seen = service
        .until(
            &format!("Ready gives the reason {}", bad.reason),
            120,
            |s| {
                let status = s.status.clone().unwrap_or_default();
                let has = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind);
                let told = has("Ready").is_some_and(|c| {
                    c.status == "False" && c.reason == bad.reason && c.message.contains(bad.words)
                });
                told && has("Stalled").is_some() == bad.for_good
            },
        )
        .await?;
    let status = seen.status.unwrap_or_default();
    let available = status.conditions.iter().find(|c| c.type_ == "Available");
    check(available.is_some_and(|c| c.status == "False"), || {
        format!("{}: {status:?}", bad.name)
    })?;
    let failure = status
        .revisions
        .first()
        .and_then(|r| r.last_failure.clone());
    check(failure.is_some_and(|f| f.reason == bad.reason), || {
        format!("{}: {status:?}", bad.name)
    })
}

async fn first_starts(t: &Test, all: Vec<Bad>) -> Result {
    for bad in &all {
        t.service(bad.name).apply(&bad.spec).await?;
    }
    for bad in &all {
        the_cause_is_told(&t.service(bad.name), bad).await?;
    }
    let told: Vec<_> = all.iter().map(|bad| bad.reason).collect();
    t.until_events(&told).await
}

#[tokio::test]
async fn a_file_that_is_no_good_model_is_named_in_the_condition_and_stalls_the_first_start() {
    Test::run(async |t| first_starts(t, files()).await).await;
}

#[tokio::test]
async fn trouble_that_may_pass_is_named_in_the_condition_and_the_start_goes_on_trying() {
    Test::run(async |t| first_starts(t, surroundings()).await).await;
}

/// The rollouts: the old revision goes on serving under load, whatever comes.
async fn rollouts(t: &Test, all: Vec<Bad>) -> Result {
    let service = t.service("tiny");
    service.apply(&spec("bad/identity.onnx")).await?;
    let old = service
        .until_ready()
        .await?
        .status
        .unwrap_or_default()
        .traffic;
    service.until_answers().await?;
    let load = service.load().await?;
    for bad in &all {
        service.apply(&bad.spec).await?;
        let seen = service
            .until(&format!("Ready tells of {}", bad.reason), 120, |s| {
                let status = s.status.clone().unwrap_or_default();
                let observed = status.observed_generation == s.metadata.generation;
                let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
                observed
                    && ready.is_some_and(|c| {
                        let failed = c.reason == "RolloutFailed"
                            && c.message.contains(&format!("failed with {}", bad.reason));
                        let trying = c.reason == bad.reason && !bad.for_good;
                        c.status == "False" && (failed || trying) && c.message.contains(bad.words)
                    })
            })
            .await?;
        let status = seen.status.unwrap_or_default();
        let available = status.conditions.iter().find(|c| c.type_ == "Available");
        let serves = available.is_some_and(|c| c.status == "True") && status.traffic == old;
        check(serves, || {
            format!("{}: the old revision must serve: {status:?}", bad.name)
        })?;
    }
    service.apply(&spec("bad/identity-2.onnx")).await?;
    let new = service
        .until_ready()
        .await?
        .status
        .unwrap_or_default()
        .traffic;
    service.until_only(&new[0].revision).await?;
    let tally = load.stop_without_a_failure().await?;
    let answers: Vec<_> = tally.answers.keys().collect();
    check(answers == ["1.0", "2.0"], || format!("{tally:?}"))?;
    let answer = service.infer_tiny().await?;
    check(answer == json!([2.0, 3.0, 4.0, 5.0]), || answer.to_string())
}

#[tokio::test]
async fn a_bad_file_never_replaces_a_model_that_serves() {
    Test::run(async |t| rollouts(t, files()).await).await;
}

#[tokio::test]
async fn trouble_of_a_new_revision_never_touches_the_one_that_serves() {
    Test::run(async |t| rollouts(t, surroundings()).await).await;
}

#[tokio::test]
async fn what_can_never_work_is_refused_when_it_is_applied() {
    Test::run(async |t| {
        for (name, uri, words) in [
            ("scheme", "s3://models/m.onnx", "unknown scheme: write"),
            ("3d-model", STORE, "DNS-1035"),
            ("model.v2", STORE, "DNS-1035"),
            (&"m".repeat(51), STORE, "over 50 characters"),
        ] {
            let refused = t.service(name).apply(&spec(uri)).await;
            let told = refused
                .err()
                .map_or_else(|| "nothing".into(), |error| error.to_string());
            check(told.contains(words), || format!("{name}, {uri}: {told}"))?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_object_of_somebody_else_is_left_alone_and_named() {
    Test::run(async |t| {
        t.kubectl(&["create", "service", "clusterip", "taken", "--tcp=80:80"])
            .await?;
        let before = t
            .kubectl(&["get", "service", "taken", "-o", "jsonpath={.spec}"])
            .await?;
        let service = t.service("taken");
        service.apply(&spec("bad/identity.onnx")).await?;
        let told = service.until_reason("NameCollision").await?;
        check(told.contains("a Service named taken exists"), || {
            told.clone()
        })?;
        let after = t
            .kubectl(&["get", "service", "taken", "-o", "jsonpath={.spec}"])
            .await?;
        check(before == after, || format!("{before} became {after}"))?;
        t.kubectl(&["delete", "service", "taken"]).await?;
        service.until_ready().await.map(drop)
    })
    .await;
}
