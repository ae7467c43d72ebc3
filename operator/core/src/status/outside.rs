//! What the status says of the routes from outside: the condition `Routed`, its part in `Ready`, and the addresses.

use ortolan_crds::{Addresses, GatewayProtocol, InferenceServiceStatus, names};

use super::Verdict;
use crate::{observed::Observed, step::Outside};

/// Whether, the reason, and a sentence.
pub(super) type Routed = (bool, String, String);

impl Verdict {
    /// A service that serves, but not to those whom the spec lets in from outside.
    pub(super) fn seen_from_outside(self, outside: Option<&Outside>) -> Self {
        match outside {
            Some(outside) if outside.blocks && self.ready.0 && self.ready.1 == "Serving" => Self {
                ready: (false, outside.reason.clone(), outside.message.clone()),
                progressing: true,
                ..self
            },
            _ => self,
        }
    }
}

/// The condition `Routed`; as before while the spec is refused.
pub(super) fn routed(
    observed: &Observed,
    outside: Option<&Outside>,
    before: &InferenceServiceStatus,
) -> Option<Routed> {
    if let Some(outside) = outside {
        let (reason, message) = (outside.reason.clone(), outside.message.clone());
        return Some((outside.routed, reason, message));
    }
    let routing = observed.service.spec.routing.as_ref();
    routing.and_then(|routing| routing.gateway.as_ref())?;
    let mut before = before.conditions.iter();
    before
        .find(|c| c.type_ == "Routed")
        .map(|c| (c.status == "True", c.reason.clone(), c.message.clone()))
}

/// Where clients reach the service: by the host of a route that a Gateway has taken, and by the Service otherwise. While
/// that is not known, as before.
pub(super) fn reached(
    observed: &Observed,
    outside: Option<&Outside>,
    before: &InferenceServiceStatus,
) -> (String, Addresses) {
    let host = format!("{}.{}.svc", observed.name(), observed.namespace());
    let inside = format!("{host}:{}", names::SERVICE_PORT);
    let routing = observed.service.spec.routing.as_ref();
    let Some(gateway) = routing.and_then(|routing| routing.gateway.as_ref()) else {
        let addresses = Addresses {
            rest: inside.clone(),
            grpc: Some(inside),
        };
        return (format!("http://{host}"), addresses);
    };
    let port = gateway.parent_refs.iter().find_map(|parent| parent.port);
    let port = port.unwrap_or(names::SERVICE_PORT);
    let had = before.addresses.clone().unwrap_or_default();
    let unknown = Some(None);
    let http = gateway.host(GatewayProtocol::HTTP).filter(|host| {
        let known = outside.map_or(unknown, |outside| outside.http);
        known.is_some_and(|known| known.unwrap_or(had.rest == format!("{host}:{port}")))
    });
    let grpc = gateway.host(GatewayProtocol::GRPC).filter(|host| {
        let known = outside.map_or(unknown, |outside| outside.grpc);
        known.is_some_and(|known| known.unwrap_or(had.grpc == Some(format!("{host}:{port}"))))
    });
    let full = |host: Option<&str>| host.map_or(inside.clone(), |host| format!("{host}:{port}"));
    let addresses = Addresses {
        rest: full(http),
        grpc: Some(full(grpc)),
    };
    let Some(host) = http else {
        return (format!("http://{host}"), addresses);
    };
    let path = gateway.prefix().unwrap_or_default();
    let url = match port {
        443 => format!("https://{host}{path}"),
        80 => format!("http://{host}{path}"),
        other => format!("http://{host}:{other}{path}"),
    };
    (url, addresses)
}
