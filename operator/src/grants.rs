//! ReferenceGrants: one for each namespace whose routes point at the routers, in the routers' namespace, and none for any other.
//!
//! No InferenceService can own one across namespaces: the leader compares all InferenceServices with all grants, when the
//! set of namespaces changes and once a minute while it is not empty. The routers' Service owns them, so that they go with it.
//! Invariants: nothing is removed before all InferenceServices are known; with `--namespace` only that namespace's grant is
//! looked at, for others belong to other operators; what has another owner is left alone.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    runtime::reflector::Store,
};
use ortolan_core::{
    build::{RouterService, reference_grant},
    drift,
    gateway::types::ReferenceGrant,
};
use ortolan_crds::{InferenceService, names};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    apply::{NO_VERSION, applied},
    gate::Gate,
    reconcile::Watched,
};

/// Between two looks at the InferenceServices; nothing is asked of the API server for it.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at the grants themselves.
const AGAIN: Duration = Duration::from_secs(60);

/// Keeps the grants.
pub struct Granter {
    /// The API server.
    pub client: Client,
    /// The routers' Service: its namespace and name.
    pub router: (String, String),
    /// The only namespace that is looked at, if not all are.
    pub scope: Option<String>,
    /// All InferenceServices.
    pub services: Store<Watched>,
    /// Turns true when they are all listed. Not the store's own word: of two that wait for that only one is woken, and
    /// the controller waits, too.
    pub listed: watch::Receiver<bool>,
    /// Whether we lead.
    pub gate: Gate,
}

/// The namespaces whose routes point at routers in another one.
#[must_use]
pub fn needed<'a>(
    services: impl IntoIterator<Item = &'a InferenceService>,
    routers: &str,
) -> BTreeSet<String> {
    let points_at_them = |service: &&InferenceService| {
        let routing = service.spec.routing.as_ref();
        let routing = routing.filter(|routing| !routing.is_split_by_gateways());
        routing.is_some_and(|routing| routing.gateway.is_some())
            && service.metadata.deletion_timestamp.is_none()
    };
    let services = services.into_iter().filter(points_at_them);
    let namespaces = services.filter_map(|service| service.metadata.namespace.clone());
    namespaces
        .filter(|namespace| namespace != routers)
        .collect()
}

impl Granter {
    /// For ever, while we lead.
    pub async fn run(mut self) {
        if self.listed.wait_for(|listed| *listed).await.is_err() {
            return;
        }
        let mut done: Option<(BTreeSet<String>, Instant)> = None;
        loop {
            sleep(LOOK).await;
            if !self.gate.is_open() {
                done = None;
                continue;
            }
            let services: Vec<Arc<Watched>> = self.services.state();
            let readable = services
                .iter()
                .filter_map(|service| service.0.as_ref().ok());
            let needed = needed(readable, &self.router.0);
            let is_due = done.as_ref().is_none_or(|(had, at)| {
                *had != needed || !needed.is_empty() && at.elapsed() >= AGAIN
            });
            // One that cannot be read may need a grant as well as any.
            let all_known = services.iter().all(|service| service.0.is_ok());
            if is_due {
                if let Err(error) = self.settle(&needed, all_known).await {
                    tracing::warn!(%error, "ReferenceGrants for routes to the routers cannot be kept: tried again");
                    sleep(AGAIN / 6).await;
                    continue;
                }
                done = Some((needed, Instant::now()));
            }
        }
    }

    async fn settle(&self, needed: &BTreeSet<String>, all_known: bool) -> Result<(), kube::Error> {
        let api: Api<ReferenceGrant> = Api::namespaced(self.client.clone(), &self.router.0);
        let granted = match &self.scope {
            Some(namespace) => format!("{}={namespace}", names::GRANTED),
            None => names::GRANTED.to_owned(),
        };
        let labels = format!("{}={},{granted}", names::MANAGED_BY, names::ORTOLAN);
        let grants = match api.list(&ListParams::default().labels(&labels)).await {
            Ok(list) => list.items,
            // Without the API there are no routes either.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error),
        };
        if !needed.is_empty() {
            let services: Api<Service> = Api::namespaced(self.client.clone(), &self.router.0);
            let service = services.get(&self.router.1).await?;
            let router = RouterService {
                namespace: self.router.0.clone(),
                name: self.router.1.clone(),
                uid: service.metadata.uid.unwrap_or_default(),
            };
            for namespace in needed {
                self.grant(&api, &grants, &reference_grant(&router, namespace))
                    .await?;
            }
        }
        for grant in grants.iter().filter(|_| all_known) {
            let namespace = grant.labels().get(names::GRANTED);
            let is_needed = namespace.is_some_and(|namespace| needed.contains(namespace));
            let is_of_this_router = grant
                .owner_references()
                .iter()
                .any(|owner| owner.kind == "Service" && owner.name == self.router.1);
            if !is_needed && is_of_this_router {
                self.remove(&api, grant).await?;
            }
        }
        Ok(())
    }

    async fn grant(
        &self,
        api: &Api<ReferenceGrant>,
        grants: &[ReferenceGrant],
        wanted: &ReferenceGrant,
    ) -> Result<(), kube::Error> {
        let name = wanted.name_any();
        let mut body = applied(wanted)?;
        let live = grants.iter().find(|grant| grant.name_any() == name);
        let mut params = PatchParams::apply(names::MANAGER_SERVICE);
        match live {
            Some(live) => {
                if drift::differs_in_order(&body, &applied(live)?).is_none() {
                    return Ok(());
                }
                params = params.force();
            }
            None => body["metadata"]["resourceVersion"] = json!(NO_VERSION),
        }
        if self.gate.is_open() {
            api.patch(&name, &params, &Patch::Apply(&body)).await?;
            tracing::info!(name, "routes of another namespace may point at the routers");
        }
        Ok(())
    }

    async fn remove(
        &self,
        api: &Api<ReferenceGrant>,
        grant: &ReferenceGrant,
    ) -> Result<(), kube::Error> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: grant.uid(),
                resource_version: grant.resource_version(),
            }),
            ..DeleteParams::default()
        };
        let name = grant.name_any();
        if !self.gate.is_open() {
            return Ok(());
        }
        match api.delete(&name, &params).await {
            Ok(_) => tracing::info!(
                name,
                "no route of that namespace points at the routers any more"
            ),
            // Gone, or changed: looked at again.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_grant_is_needed_where_routes_point_at_routers_of_another_namespace() {
        let service = |namespace: &str, routing: Value| -> InferenceService {
            serde_json::from_value(json!({
                "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
                "metadata": {"name": "m", "namespace": namespace},
                "spec": {"model": {"uri": "https://a/m.onnx"}, "routing": routing},
            }))
            .expect("a service")
        };
        let gateway = json!({"parentRefs": [{"name": "g"}]});
        let mut going = service("going", json!({"gateway": gateway}));
        going.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time"));
        let services = [
            service("a", json!({"gateway": gateway})),
            service("a", json!({"gateway": gateway, "provider": "Router"})),
            service("b", json!({"gateway": gateway, "provider": "GatewayAPI"})),
            service("c", json!({})),
            service("system", json!({"gateway": gateway})),
            going,
        ];
        let found: Vec<String> = needed(&services, "system").into_iter().collect();
        assert_eq!(found, ["a"]);
    }
}
