//! The Gateway itself, before anything of ours stands behind it: a failure here is none of the operator's.

use std::time::Duration;

use ortolan_e2e::{Gateway, Result, Test, check};
use serde_json::{Value, json};
use tokio::time::sleep;

/// A route to the model store, which is in a namespace of its own.
fn route(t: &Test, gateway: &Gateway, host: &str, backends: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "plain", "namespace": t.namespace},
        "spec": {
            "parentRefs": [gateway.listener("http")], "hostnames": [host],
            "rules": [{"backendRefs": backends}],
        },
    })
}

/// The store takes routes of this test's namespace.
fn grant(t: &Test) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"name": t.namespace, "namespace": "ortolan-models"},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": t.namespace}],
            "to": [{"group": "", "kind": "Service", "name": "model-store"}],
        },
    })
}

/// Waits until the Gateway's controller says why it does not resolve the route's backends: the data plane may be ahead
/// of that.
async fn until_unresolved(t: &Test, reason: &str) -> Result {
    let path = "jsonpath={.status.parents[0].conditions[?(@.type==\"ResolvedRefs\")].reason}";
    let mut told = String::new();
    for _ in 0..60 {
        told = t
            .kubectl(&["get", "httproute", "plain", "-o", path])
            .await?;
        if told == reason {
            return Ok(());
        }
        sleep(Duration::from_millis(500)).await;
    }
    check(false, || format!("{reason} was expected: {told:?}"))
}

#[tokio::test]
#[ignore = "needs a Gateway: make e2e-gateway"]
async fn a_plain_route_crosses_namespaces_by_a_grant_and_a_missing_service_is_told() {
    Test::run(async |t| {
        let gateway = Gateway::find(&t.client).await?;
        let name = format!("plain.{}.example.test", t.namespace);
        let (host, path) = (gateway.host(&name), "/flower.jpg");
        host.until_status(path, 404).await?;

        let store = json!({"name": "model-store", "namespace": "ortolan-models", "port": 80});
        t.apply(&route(t, &gateway, &name, &json!([store]))).await?;
        host.until_status(path, 500).await?;
        until_unresolved(t, "RefNotPermitted").await?;

        t.apply(&grant(t)).await?;
        let answer = host.until_status(path, 200).await?;
        check(answer.body.len() > 1000, || answer.body.clone())?;

        let missing = json!({"name": "nobody", "port": 80});
        t.apply(&route(t, &gateway, &name, &json!([missing])))
            .await?;
        host.until_status(path, 500).await?;
        until_unresolved(t, "BackendNotFound").await?;
        t.kubectl(&["delete", "httproute", "plain"]).await?;
        host.until_status(path, 404).await?;
        let grants = [
            "-n",
            "ortolan-models",
            "delete",
            "referencegrant",
            &t.namespace,
        ];
        ortolan_e2e::kubectl(&grants).await.map(drop)
    })
    .await;
}
