//! Which pods can answer for a service from outside of the cluster.
//!
//! Pure. A Service that is an alias (ExternalName) stands for the routers: what asks one of them is split, held and
//! counted like any other request. Any other Service stands for the pods of the revision that serves.

use k8s_openapi::{
    api::core::v1::{Pod, Service},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt as _;
use ortolan_crds::{InferenceService, names};

use super::Error;
use crate::{facts, near::meant};

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The pods behind the routers' Service.
    Routers {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The pods of a revision.
    Pods {
        /// Which.
        revision: String,
        /// What selects them.
        selector: String,
    },
}

/// A port by number, or by the name that the pod gives it.
pub type Port = IntOrString;

/// The way to a service.
///
/// # Errors
/// When the Service is an alias of something else, or nothing serves.
pub fn route(service: &InferenceService, front: Option<&Service>) -> Result<Way, Error> {
    let spec = front.and_then(|front| front.spec.as_ref());
    let alias = spec.filter(|spec| spec.type_.as_deref() == Some("ExternalName"));
    if let Some(alias) = alias {
        let full = alias.external_name.clone().unwrap_or_default();
        let mut labels = full.split('.');
        return match (labels.next(), labels.next(), labels.next()) {
            (Some(name), Some(namespace), Some("svc")) => Ok(Way::Routers {
                namespace: namespace.into(),
                name: name.into(),
            }),
            _ => Err(Error::Alias {
                name: service.name_any(),
                alias: full,
            }),
        };
    }
    let serving = facts::traffic(service)
        .first()
        .map(|share| share.revision.clone());
    let serving = serving.ok_or_else(|| Error::NoPod {
        of: service.name_any(),
        hint: format!(
            "no revision of it serves yet; `ortolan status {}` tells why",
            service.name_any()
        ),
    })?;
    Ok(pods(service, serving))
}

/// The way to one revision, past the routers.
///
/// # Errors
/// When there is no such revision.
pub fn revision(service: &InferenceService, meant_by: &str) -> Result<Way, Error> {
    let name = service.name_any();
    let known: Vec<&str> = service
        .status
        .iter()
        .flat_map(|status| &status.revisions)
        .map(|revision| revision.name.as_str())
        .collect();
    let found = known
        .iter()
        .find(|known| **known == meant_by || facts::short(&name, known) == meant_by);
    match found {
        Some(revision) => Ok(pods(service, (*revision).to_owned())),
        None => Err(Error::NoPod {
            of: meant_by.to_owned(),
            hint: format!(
                "{name} has no such revision with pods{}; it has: {}",
                meant(meant_by, known.iter().copied()),
                if known.is_empty() {
                    "none".into()
                } else {
                    known.join(", ")
                }
            ),
        }),
    }
}

fn pods(service: &InferenceService, revision: String) -> Way {
    let selector = format!(
        "{}={},{}={revision}",
        names::SERVICE,
        service.name_any(),
        names::REVISION
    );
    Way::Pods { revision, selector }
}

/// What selects the pods behind a Service, and their port: the one called `http`, else the first.
pub fn behind(service: &Service) -> Option<(String, Port)> {
    let spec = service.spec.as_ref()?;
    let selector = spec
        .selector
        .as_ref()
        .filter(|selector| !selector.is_empty())?;
    let pairs: Vec<String> = selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let port = ports
        .iter()
        .find(|port| port.name.as_deref() == Some("http"))
        .or(ports.first())?;
    Some((
        pairs.join(","),
        port.target_port.clone().unwrap_or(Port::Int(port.port)),
    ))
}

/// The port of a server's pod.
pub const fn server_port() -> Port {
    Port::Int(names::CONTAINER_PORT)
}

/// The first pod that takes requests.
pub fn ready(pods: &[Pod]) -> Option<&Pod> {
    let is_ready = |pod: &&Pod| {
        let conditions = pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref());
        let ready = conditions
            .unwrap_or_default()
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        ready && pod.metadata.deletion_timestamp.is_none()
    };
    pods.iter().find(is_ready)
}

/// The number of a port of this pod.
pub fn port(port: &Port, pod: &Pod) -> Option<u16> {
    let number = match port {
        Port::Int(number) => *number,
        Port::String(name) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports
                .find(|port| port.name.as_ref() == Some(name))?
                .container_port
        }
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(status: Value) -> InferenceService {
        let object = json!({
            "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
            "metadata": {"name": "cats", "namespace": "demo"},
            "spec": {"model": {"uri": "https://models.example.com/cats.onnx"}}, "status": status,
        });
        serde_json::from_value(object).expect("a service")
    }

    fn split() -> InferenceService {
        service(json!({
            "traffic": [{"revision": "cats-2", "weight": 10}, {"revision": "cats-1", "weight": 90}],
            "revisions": [{"name": "cats-1", "phase": "Serving"}, {"name": "cats-2", "phase": "Serving"}],
        }))
    }

    fn front(spec: Value) -> Service {
        serde_json::from_value(json!({"spec": spec})).expect("a Service")
    }

    #[test]
    fn an_alias_leads_to_the_routers_and_anything_else_to_the_pods_that_serve() {
        let alias = |name: &str| front(json!({"type": "ExternalName", "externalName": name}));
        assert_eq!(
            route(
                &split(),
                Some(&alias("ortolan-router.ortolan-system.svc.cluster.local"))
            )
            .expect("a way"),
            Way::Routers {
                namespace: "ortolan-system".into(),
                name: "ortolan-router".into()
            }
        );
        for other in [Some(front(json!({"type": "ClusterIP"}))), None] {
            assert_eq!(
                route(&split(), other.as_ref()).expect("a way"),
                Way::Pods {
                    revision: "cats-1".into(),
                    selector:
                        "serving.ortolan.dev/service=cats,serving.ortolan.dev/revision=cats-1"
                            .into()
                }
            );
        }
        let error = route(&split(), Some(&alias("example.com")))
            .expect_err("no Service")
            .to_string();
        assert!(
            error.contains("an alias of example.com") && error.contains("--revision"),
            "{error}"
        );
        let error = route(&service(json!({})), None)
            .expect_err("nothing")
            .to_string();
        assert!(error.contains("no revision of it serves yet"), "{error}");
    }

    #[test]
    fn a_revision_can_be_asked_by_its_name_or_its_last_part() {
        for name in ["cats-2", "2"] {
            assert!(
                matches!(revision(&split(), name), Ok(Way::Pods { revision, .. }) if revision == "cats-2")
            );
        }
        let error = revision(&split(), "cats-3").expect_err("none").to_string();
        assert!(
            error.contains("did you mean cats-1 or cats-2?")
                && error.contains("it has: cats-1, cats-2"),
            "{error}"
        );
    }

    #[test]
    fn a_port_is_found_by_its_name_in_the_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "r-1"},
            "spec": {"containers": [{"name": "router", "ports": [{"name": "http", "containerPort": 8080}, {"name": "admin", "containerPort": 9090}]}]},
        }))
        .expect("a pod");
        let service = front(json!({
            "selector": {"app": "router", "a": "b"},
            "ports": [{"name": "metrics", "port": 9090}, {"name": "http", "port": 80, "targetPort": "http"}],
        }));
        let (selector, target) = behind(&service).expect("ports");
        assert_eq!(selector, "a=b,app=router");
        assert_eq!(port(&target, &pod), Some(8080));
        assert_eq!(port(&Port::String("none".into()), &pod), None);
        assert_eq!(port(&Port::Int(70_000), &pod), None);
        assert_eq!(behind(&front(json!({"ports": [{"port": 80}]}))), None);
    }

    #[test]
    fn only_a_pod_that_is_ready_and_stays_is_asked() {
        let pod = |name: &str, ready: &str, deleted: Option<&str>| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": name, "deletionTimestamp": deleted},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .expect("a pod")
        };
        let pods = [
            pod("a", "False", None),
            pod("b", "True", Some("2026-01-01T00:00:00Z")),
            pod("c", "True", None),
        ];
        assert_eq!(ready(&pods).map(|pod| pod.name_any()), Some("c".into()));
        assert!(ready(&pods[..2]).is_none());
    }
}
