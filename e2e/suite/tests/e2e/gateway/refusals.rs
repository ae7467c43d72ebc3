//! What a Gateway does not take is told in its own words, and the service works inside the cluster all the same.

use ortolan_e2e::{Gateway, Result, Service, Test, check, spec};
use serde_json::{Value, json};

use super::{host, routed, until_routed};

/// `Routed` comes to say all of these words.
async fn says(service: &Service, words: &[&str]) -> Result {
    let what = format!("Routed is not True and says {words:?}");
    let said = service.until(&what, 60, |service| {
        let [status, reason, message] = routed(service);
        let text = format!("{reason}: {message}");
        !status.is_empty() && status != "True" && words.iter().all(|word| text.contains(word))
    });
    let said = routed(&said.await?).join(" ");
    eprintln!("{said}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a Gateway: make e2e-gateway"]
async fn a_gateway_that_is_not_there_and_listeners_that_refuse_are_told_in_the_gateways_words() {
    Test::run(async |t| {
        let gateway = Gateway::find(&t.client).await?;
        let rest = host(t, &gateway, "rest");
        let to = |parent: Value| json!({"routing": {"gateway": {"parentRefs": [parent], "hostnames": [rest.name]}}});
        let mut first = spec("bad/identity.onnx");
        first["routing"] = to(gateway.listener("closed"))["routing"].clone();
        let service = t.service("tiny");
        service.apply(&first).await?;
        says(&service, &["ortolan-gateways/gateway", "closed", "NotAllowedByListeners"]).await?;

        service.change(&to(gateway.listener("nothing"))).await?;
        says(&service, &["ortolan-gateways/gateway", "nothing", "NoMatchingParent"]).await?;

        let nobody = json!({"name": "nobody", "namespace": "ortolan-gateways"});
        service.change(&to(nobody)).await?;
        says(&service, &["ortolan-gateways/nobody"]).await?;
        service.until_answers().await?;
        let answer = service.infer_tiny().await?;
        check(answer == json!([1.0, 2.0, 3.0, 4.0]), || answer.to_string())?;

        service.change(&to(gateway.listener("http"))).await?;
        until_routed(&service).await?;
        rest.until_status("/v2/health/ready", 200).await.map(drop)
    })
    .await;
}
