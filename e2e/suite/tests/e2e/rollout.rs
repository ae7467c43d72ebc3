//! Changes under load: no request may fail.

use ortolan_e2e::{Result, Service, Test, check, spec};
use serde_json::{Value, json};

/// The revision that gets the requests.
fn revision(service: &ortolan_crds::InferenceService) -> String {
    let status = service.status.clone().unwrap_or_default();
    status
        .traffic
        .first()
        .map_or_else(String::new, |t| t.revision.clone())
}

/// `changed`, a spec of the other tiny model, takes over from the one that serves, and nothing of that is left.
pub(crate) async fn takes_over_without_a_failed_request(
    t: &Test,
    service: &Service,
    changed: &Value,
) -> Result {
    let old = revision(&service.get().await?);
    let load = service.load().await?;
    service.apply(changed).await?;
    let new = revision(&service.until_ready().await?);
    check(new != old, || format!("{old} still serves"))?;
    service.until_only(&new).await?;
    let tally = load.stop_without_a_failure().await?;
    let (before, after) = (tally.answers.get("1.0"), tally.answers.get("2.0"));
    let moved = before.zip(after).is_some_and(|(before, after)| {
        before.count > 20 && after.count > 20 && before.last_ms < after.last_ms
    });
    check(moved && tally.answers.len() == 2, || {
        format!("{:?}", tally.answers)
    })?;
    let answer = service.infer_tiny().await?;
    check(answer == json!([2.0, 3.0, 4.0, 5.0]), || answer.to_string())?;
    let left = t.kubectl(&["get", "deployments,pdb", "-o", "name"]).await?;
    check(!left.contains(&old) && left.contains(&new), || left.clone())
}

#[tokio::test]
async fn a_new_model_takes_over_under_load_without_a_failed_request_and_the_old_one_goes() {
    Test::run(async |t| {
        let service = t.serving(&spec("bad/identity.onnx")).await?;
        takes_over_without_a_failed_request(t, &service, &spec("bad/identity-2.onnx")).await
    })
    .await;
}
