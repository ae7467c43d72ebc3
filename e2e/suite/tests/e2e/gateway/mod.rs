//! Services behind a real Gateway: `make e2e-gateway` gives them one, and the other suites have none, so all of
//! these are ignored there.
//!
//! The Gateway is of any implementation (`e2e/gateway`: Envoy Gateway).

mod environment;
mod refusals;
mod routers;
mod weights;

use std::time::{Duration, Instant};

use ortolan_crds::{InferenceService, Traffic};
use ortolan_e2e::{Gateway, Host, Result, SYSTEM, Service, Test, check, kubectl, spec};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::leftovers::ours;

/// A host name of this test's own.
fn host(t: &Test, gateway: &Gateway, name: &str) -> Host {
    gateway.host(&format!("{name}.{}.example.test", t.namespace))
}

/// A tiny service behind the Gateway, REST and gRPC by host names of their own.
fn behind(gateway: &Gateway, model: &str, rest: &Host, grpc: &Host) -> Value {
    let mut spec = spec(model);
    spec["routing"] = json!({"gateway": {
        "parentRefs": [gateway.listener("http")],
        "hostnames": [rest.name], "grpcHostnames": [grpc.name],
    }});
    spec
}

/// What `Routed` says: status, reason and message.
fn routed(service: &InferenceService) -> [String; 3] {
    let status = service.status.iter();
    let mut conditions = status.flat_map(|status| &status.conditions);
    let said = conditions.find(|c| c.type_ == "Routed");
    said.map_or_else(Default::default, |c| {
        [c.status.clone(), c.reason.clone(), c.message.clone()]
    })
}

/// Waits until the Gateways have taken the routes as they are.
async fn until_routed(service: &Service) -> Result<InferenceService> {
    service
        .until("Routed is True", 60, |service| routed(service)[0] == "True")
        .await
}

/// Waits until the revisions have these shares, the stable one's first, and the Gateways follow them.
async fn until_weights(service: &Service, wanted: &[i32]) -> Result<Vec<Traffic>> {
    let what = format!("the shares are {wanted:?}");
    let wanted: Vec<_> = wanted
        .iter()
        .copied()
        .filter(|weight| *weight > 0)
        .collect();
    let holds = |s: &InferenceService| {
        let shares = crate::canary::weights(s).into_iter();
        shares
            .filter(|weight| *weight > 0)
            .eq(wanted.iter().copied())
    };
    service.until(&what, 120, holds).await?;
    let service = until_routed(service).await?;
    // The data plane is a little behind.
    sleep(Duration::from_secs(3)).await;
    Ok(service.status.unwrap_or_default().traffic)
}

/// The tiny model's answer under this path begins with this number.
async fn answers(host: &Host, prefix: &str, model: &str, first: f64) -> Result {
    let answer = host.infer(prefix, model).await?.json()?;
    check(answer["outputs"][0]["data"][0] == json!(first), || {
        format!("{} {model}: it begins with {first}: {answer}", host.name)
    })
}

/// Deletes a service, and waits until nothing is left of it, neither in its namespace nor beside the routers.
async fn goes_without_a_trace(t: &Test, service: &Service) -> Result {
    let before = ours(t, &service.name).await?;
    check(
        before.iter().any(|name| name.starts_with("httproute")),
        || format!("no HTTPRoute among {before:?}"),
    )?;
    service.delete().await?;
    let start = Instant::now();
    loop {
        let left = ours(t, &service.name).await?;
        let grants = grants(t).await?;
        if left.is_empty() && grants.is_empty() {
            return Ok(());
        }
        check(start.elapsed() < Duration::from_secs(90), || {
            format!("left: {left:?}, grants {grants:?}")
        })?;
        sleep(Duration::from_millis(500)).await;
    }
}

/// The grants for routes of this test's namespace, beside the routers.
async fn grants(t: &Test) -> Result<String> {
    let label = format!("serving.ortolan.dev/granted={}", t.namespace);
    kubectl(&[
        "-n",
        SYSTEM,
        "get",
        "referencegrants",
        "-l",
        &label,
        "-o",
        "name",
    ])
    .await
}
