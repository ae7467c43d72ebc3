//! The Gateway itself, before anything of ours stands behind it: a failure here is none of the operator's.

use ortolan_e2e::{Gateway, Result, Test, check};
use serde_json::{Value, json};

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

/// Why the Gateway's controller does not resolve the route's backends.
async fn unresolved(t: &Test) -> Result<String> {
    let reason = "jsonpath={.status.parents[0].conditions[?(@.type==\"ResolvedRefs\")].reason}";
    t.kubectl(&["get", "httproute", "plain", "-o", reason])
        .await
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
        let told = unresolved(t).await?;
        check(told == "RefNotPermitted", || told.clone())?;

        t.apply(&grant(t)).await?;
        let answer = host.until_status(path, 200).await?;
        check(answer.body.len() > 1000, || answer.body.clone())?;

        let missing = json!({"name": "nobody", "port": 80});
        t.apply(&route(t, &gateway, &name, &json!([missing])))
            .await?;
        host.until_status(path, 500).await?;
        let told = unresolved(t).await?;
        check(told == "BackendNotFound", || told.clone())?;
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
