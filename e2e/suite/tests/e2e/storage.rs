//! A disk that is too small: what the server refuses itself, and what the kubelet ends.

use ortolan_e2e::{Test, check, spec};
use serde_json::json;

#[tokio::test]
async fn a_pod_that_the_kubelet_evicts_is_told_with_its_limit_and_the_kubelets_words() {
    Test::run(async |t| {
        let service = t.service("tiny");
        // Room for the model, and none for the log.
        let mut tight = spec("bad/identity.onnx");
        tight["server"]["resources"]["limits"]["ephemeral-storage"] = json!("1Ki");
        service.apply(&tight).await?;
        let told = service.until_reason("Evicted").await?;
        let words = [
            "the kubelet evicted a pod",
            "ephemeral",
            "1Ki",
            "raise server.resources.limits.ephemeral-storage",
        ];
        check(words.iter().all(|word| told.contains(word)), || {
            told.clone()
        })?;
        t.until_events(&["Evicted"]).await?;
        // More room, and it serves.
        service.apply(&spec("bad/identity.onnx")).await?;
        service.until_ready().await.map(drop)
    })
    .await;
}
