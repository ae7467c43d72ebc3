//! Which routers may have requests: the endpoints of their Service that are ready or still serve.
//!
//! Synchronous. Invariant: nothing is said before the first listing is complete, and a listing replaces what was there
//! when it is complete, not before.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::Event;

/// An endpoint's pod, where it is known, and its address.
type Pods = Vec<(Option<String>, IpAddr)>;

/// What the watch saw.
#[derive(Debug, Default)]
pub struct Endpoints {
    slices: BTreeMap<String, Pods>,
    listing: Option<BTreeMap<String, Pods>>,
    is_listed: bool,
}

impl Endpoints {
    /// Takes an event.
    pub fn apply(&mut self, event: Event<EndpointSlice>) {
        match event {
            Event::Init => self.listing = Some(BTreeMap::new()),
            Event::InitApply(slice) => {
                if let Some(listing) = &mut self.listing {
                    listing.insert(name(&slice), serving(&slice));
                }
            }
            Event::InitDone => {
                self.slices = self.listing.take().unwrap_or_default();
                self.is_listed = true;
            }
            Event::Apply(slice) => {
                self.slices.insert(name(&slice), serving(&slice));
            }
            Event::Delete(slice) => {
                self.slices.remove(&name(&slice));
            }
        }
    }

    /// Each router once, by one address. `None` until they were listed.
    #[must_use]
    pub fn routers(&self) -> Option<BTreeSet<IpAddr>> {
        let all = self.slices.values().flatten();
        let mut by_pod: BTreeMap<&str, IpAddr> = BTreeMap::new();
        let mut others = BTreeSet::new();
        for (pod, address) in all {
            match pod {
                // IPv4 comes first: a pod of both families stands in two slices.
                Some(pod) => {
                    let known = by_pod.entry(pod).or_insert(*address);
                    *known = (*known).min(*address);
                }
                None => {
                    others.insert(*address);
                }
            }
        }
        others.extend(by_pod.into_values());
        self.is_listed.then_some(others)
    }
}

fn name(slice: &EndpointSlice) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}

fn serving(slice: &EndpointSlice) -> Pods {
    let one = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        // Absent means unknown, which the API says to take for ready.
        let ready = conditions.ready.unwrap_or(true);
        if !ready && !conditions.serving.unwrap_or(ready) {
            return None;
        }
        let pod = endpoint
            .target_ref
            .as_ref()
            .and_then(|pod| pod.name.clone());
        // All addresses of an endpoint are the same pod; the API says to use the first.
        Some((pod, endpoint.addresses.first()?.parse().ok()?))
    };
    slice.endpoints.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, endpoints: &[Value]) -> EndpointSlice {
        let slice =
            json!({"metadata": {"name": name}, "addressType": "IPv4", "endpoints": endpoints});
        serde_json::from_value(slice).expect("a slice")
    }

    fn endpoint(pod: &str, address: &str, ready: bool, serving: bool) -> Value {
        json!({"addresses": [address], "targetRef": {"kind": "Pod", "name": pod},
               "conditions": {"ready": ready, "serving": serving, "terminating": !ready}})
    }

    fn routers(endpoints: &Endpoints) -> Option<Vec<String>> {
        let routers = endpoints.routers()?;
        Some(routers.iter().map(IpAddr::to_string).collect())
    }

    #[test]
    fn a_router_that_is_ready_or_serves_on_is_named_once() {
        let mut endpoints = Endpoints::default();
        endpoints.apply(Event::Init);
        let four = [
            endpoint("a", "10.0.0.1", true, true),
            endpoint("b", "10.0.0.2", false, true),
            endpoint("c", "10.0.0.3", false, false),
            json!({"addresses": ["10.0.0.4"]}),
        ];
        endpoints.apply(Event::InitApply(slice("four", &four)));
        assert_eq!(routers(&endpoints), None, "the listing is not complete");
        let six = [endpoint("a", "fd00::1", true, true)];
        endpoints.apply(Event::InitApply(slice("six", &six)));
        endpoints.apply(Event::InitDone);
        let expected = ["10.0.0.1", "10.0.0.2", "10.0.0.4"].map(str::to_owned);
        assert_eq!(routers(&endpoints), Some(expected.to_vec()));
    }

    #[test]
    fn a_listing_that_is_under_way_changes_nothing() {
        let mut endpoints = Endpoints::default();
        endpoints.apply(Event::Init);
        endpoints.apply(Event::InitDone);
        assert_eq!(routers(&endpoints), Some(vec![]));
        let one = slice("x", &[endpoint("a", "10.0.0.1", true, true)]);
        endpoints.apply(Event::Apply(one.clone()));
        endpoints.apply(Event::Init);
        assert_eq!(routers(&endpoints), Some(vec!["10.0.0.1".to_owned()]));
        endpoints.apply(Event::InitApply(one.clone()));
        endpoints.apply(Event::InitDone);
        endpoints.apply(Event::Delete(one));
        assert_eq!(routers(&endpoints), Some(vec![]));
    }
}
