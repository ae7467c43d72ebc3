//! The Gateway API on the tests' API server, and a player of the controller that Gateways have: it writes into the status of
//! every route of a namespace what the test says, about the generation that it sees.
//!
//! Real: the definitions (v1.5.1, standard channel, applied by kubectl) and the routes. Not real: there is no Gateway, no
//! data plane, and no request.

use std::{
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use ortolan_core::gateway::types::{GrpcMatch, HttpMatch, Matching, Route};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::RwLock, task::JoinHandle};

use crate::world::World;

/// The definitions are the whole API server's: who removes them holds it alone, who needs them shares it.
pub static API: RwLock<()> = RwLock::const_new(());
const PAUSE: Duration = Duration::from_millis(150);

fn kubectl(arguments: &[&str]) {
    let output = Command::new("kubectl").args(arguments).output();
    let output = output.expect("kubectl is on the PATH: start the tests by tests/run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments:?}: {said}");
}

/// Installs the definitions, if they are not there, and waits until they are served.
pub fn install() {
    let folder = std::env::var("ORTOLAN_GATEWAY_API").expect(
        "ORTOLAN_GATEWAY_API names the folder of the definitions: start the tests by tests/run",
    );
    kubectl(&["apply", "--server-side", "-f", &folder]);
    let crds = ["httproutes", "grpcroutes", "referencegrants"]
        .map(|kind| format!("crd/{kind}.gateway.networking.k8s.io"));
    let mut wait = vec!["wait", "--for=condition=Established", "--timeout=60s"];
    wait.extend(crds.iter().map(String::as_str));
    kubectl(&wait);
}

/// Removes the definitions of the routes, and all routes with them.
pub fn remove() {
    kubectl(&[
        "delete",
        "crd",
        "--ignore-not-found",
        "httproutes.gateway.networking.k8s.io",
        "grpcroutes.gateway.networking.k8s.io",
    ]);
}

/// What the Gateways say of a kind of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// Nothing.
    Nothing,
    /// They take them.
    Accept,
    /// `Accepted: False` with this reason and message.
    Refuse(&'static str, &'static str),
    /// `ResolvedRefs: False` with this reason and message.
    CannotResolve(&'static str, &'static str),
}

/// Plays the controller in one namespace; ends when it is dropped.
pub struct Gateways {
    says: Arc<Mutex<(Say, Say)>>,
    task: JoinHandle<()>,
}

impl Drop for Gateways {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gateways {
    /// Says this of HTTPRoutes and of GRPCRoutes.
    #[must_use]
    pub fn start(world: &World, say: Say) -> Self {
        let says = Arc::new(Mutex::new((say, say)));
        let (http, grpc) = (
            world.api::<Route<HttpMatch>>(),
            world.api::<Route<GrpcMatch>>(),
        );
        let task = tokio::spawn({
            let says = Arc::clone(&says);
            async move {
                loop {
                    let (of_http, of_grpc) = *says.lock().unwrap_or_else(PoisonError::into_inner);
                    // The definitions may be away.
                    let _ = tell(&http, of_http).await;
                    let _ = tell(&grpc, of_grpc).await;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        Self { says, task }
    }

    /// From now on this.
    pub fn say(&self, http: Say, grpc: Say) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = (http, grpc);
    }
}

async fn tell<M>(api: &Api<Route<M>>, say: Say) -> Result<(), kube::Error>
where
    M: Matching + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    if say == Say::Nothing {
        return Ok(());
    }
    for route in api.list(&ListParams::default()).await?.items {
        let parents = conditions(&route, say);
        let have = serde_json::to_value(&route.status).unwrap_or_default();
        if have["parents"] != parents {
            let body = json!({"status": {"parents": parents}});
            let params = PatchParams {
                field_manager: Some("test-gateways".into()),
                ..PatchParams::default()
            };
            api.patch_status(&route.name_any(), &params, &Patch::Merge(&body))
                .await?;
        }
    }
    Ok(())
}

fn conditions<M>(route: &Route<M>, say: Say) -> Value {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "observedGeneration": route.metadata.generation, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let good = |kind: &str| condition(kind, "True", kind, "");
    let conditions = match say {
        Say::Nothing => Vec::new(),
        Say::Accept => vec![good("Accepted"), good("ResolvedRefs")],
        Say::Refuse(reason, message) => {
            vec![
                condition("Accepted", "False", reason, message),
                good("ResolvedRefs"),
            ]
        }
        Say::CannotResolve(reason, message) => vec![
            good("Accepted"),
            condition("ResolvedRefs", "False", reason, message),
        ],
    };
    let parents = route.spec.parent_refs.iter().map(|parent| {
        json!({"parentRef": parent, "controllerName": "example.com/played", "conditions": conditions})
    });
    parents.collect()
}
