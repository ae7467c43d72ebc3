//! The table: which services there are, how their requests are split, and which pods answer them.
//!
//! This is the router's only knowledge. Every source (a file, the Kubernetes API, the last state on disk) makes one,
//! and the same text form serves as `--state` and as the last state.
//!
//! Invariants, checked by [`Table::check`]: a host name belongs to one service; a revision's name stands once in its
//! service; weights are 0 to 100.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::SocketAddr,
    num::NonZeroU32,
};

use serde::{Deserialize, Serialize};

mod mirror;
mod settings;

pub use mirror::{Mirror, Percent};
pub use settings::{Balancing, RevisionHeader, Session, Settings};

/// Everything that is routed to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    /// The routers that serve this table.
    #[serde(default, skip_serializing_if = "Routers::is_alone")]
    pub routers: Routers,
    /// By `namespace/name`.
    #[serde(default)]
    pub services: BTreeMap<ServiceName, Service>,
}

/// A namespace and a name, written `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName {
    namespace: Box<str>,
    name: Box<str>,
}

/// Who shares a pod's places: each router takes its part of `maxConcurrency`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routers {
    /// How many routers are alive, this one included.
    pub live: NonZeroU32,
    /// Which of them this one is, from 0.
    #[serde(default)]
    pub index: u32,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// Host names beside those that follow from its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// How its requests are handled.
    #[serde(default, skip_serializing_if = "Settings::is_default")]
    pub routing: Settings,
    /// Counts which change of the traffic this is: what comes of requests is told apart by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// What answers, and which share of the requests each gets.
    #[serde(default)]
    pub revisions: Vec<Revision>,
    /// Copies of requests whose answers are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
}

/// One revision of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revision {
    /// Its name, unique in the service.
    pub name: String,
    /// Its part of the requests; the parts of a service's revisions need not make 100.
    #[serde(default)]
    pub weight: Weight,
    /// Requests that one pod works on at a time; no bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<NonZeroU32>,
    /// The versions in `/versions/{version}` that it answers; empty when that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// Its pods.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}

/// A share of the requests, 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Weight(u8);

/// A pod's address and its state, as EndpointSlices have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// It wants requests.
    pub ready: bool,
    /// It answers requests, though it may be on its way out.
    pub serving: bool,
    /// It is on its way out.
    pub terminating: bool,
}

/// An address alone, or with its state.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "an endpoint is an address such as 10.0.0.7:8080, or {address: 10.0.0.7:8080, ready: false, serving: true, terminating: true}"
)]
enum Written {
    Address(SocketAddr),
    State(State),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct State {
    address: SocketAddr,
    #[serde(default = "yes")]
    ready: bool,
    serving: Option<bool>,
    #[serde(default)]
    terminating: bool,
}

const fn yes() -> bool {
    true
}

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Not `namespace/name`.
    #[error(
        "{0:?} is no service: write namespace/name, each of a-z 0-9 and -, beginning and ending with a letter or digit"
    )]
    Name(String),
    /// Out of range.
    #[error("a weight is a whole number from 0 to 100, not {0}")]
    Weight(i64),
    /// A part of the requests that is none.
    #[error("a mirror's percent is a whole number from 1 to 100, not {0}")]
    Percent(i64),
    /// Two services with one host name.
    #[error("the host {host} belongs to {first} and to {second}: write it under one of them")]
    Host {
        /// The host name.
        host: String,
        /// Who has it.
        first: ServiceName,
        /// Who has it, too.
        second: ServiceName,
    },
    /// A revision is there twice.
    #[error(
        "{service} has the revision {revision} twice: names of revisions are unique in a service"
    )]
    Revision {
        /// The service.
        service: ServiceName,
        /// The name that is there twice.
        revision: String,
    },
    /// An index beyond the number of routers.
    #[error("routers.index is {index} of {live} routers: indices begin with 0")]
    Index {
        /// What was written.
        index: u32,
        /// How many there are.
        live: NonZeroU32,
    },
    /// A name that HTTP does not allow.
    #[error("{service}: {name:?} cannot be the name of a {what}")]
    Session {
        /// The service.
        service: ServiceName,
        /// What was written.
        name: String,
        /// A header or a cookie.
        what: &'static str,
    },
}

impl Default for Routers {
    fn default() -> Self {
        Self {
            live: NonZeroU32::MIN,
            index: 0,
        }
    }
}

impl Routers {
    fn is_alone(&self) -> bool {
        *self == Self::default()
    }

    /// This router's part of a pod's `max` places. The parts of all routers make `max`, except where there are more
    /// routers than places: then each has one, and the pod turns away what is too much.
    #[must_use]
    pub fn share(self, max: NonZeroU32) -> u32 {
        let (max, live) = (max.get(), self.live.get());
        let part = max / live + u32::from(self.index < max % live);
        part.max(1)
    }
}

impl Weight {
    /// Percent, 0 to 100.
    ///
    /// # Errors
    /// Outside of that range.
    pub fn new(percent: i64) -> Result<Self, TableError> {
        match u8::try_from(percent) {
            Ok(weight @ 0..=100) => Ok(Self(weight)),
            _ => Err(TableError::Weight(percent)),
        }
    }

    /// 0 to 100.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<i64> for Weight {
    type Error = TableError;

    fn try_from(percent: i64) -> Result<Self, TableError> {
        Self::new(percent)
    }
}

impl From<Weight> for i64 {
    fn from(weight: Weight) -> Self {
        weight.0.into()
    }
}

impl ServiceName {
    /// From its two parts.
    ///
    /// # Errors
    /// When one of them is no DNS label.
    pub fn new(namespace: &str, name: &str) -> Result<Self, TableError> {
        if is_label(namespace) && is_label(name) {
            Ok(Self {
                namespace: namespace.into(),
                name: name.into(),
            })
        } else {
            Err(TableError::Name(format!("{namespace}/{name}")))
        }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name in it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A label of DNS, as names of namespaces and Services are.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| inside(*byte) || *byte == b'-')
        && bytes.first().is_some_and(|byte| inside(*byte))
        && bytes.last().is_some_and(|byte| inside(*byte))
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = TableError;

    fn try_from(text: String) -> Result<Self, TableError> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Err(TableError::Name(text)),
        }
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.to_string()
    }
}

impl Endpoint {
    /// A pod that wants requests.
    #[must_use]
    pub const fn ready(address: SocketAddr) -> Self {
        Self {
            address,
            ready: true,
            serving: true,
            terminating: false,
        }
    }
}

impl From<Written> for Endpoint {
    fn from(written: Written) -> Self {
        match written {
            Written::Address(address) => Self::ready(address),
            Written::State(state) => Self {
                address: state.address,
                ready: state.ready,
                serving: state.serving.unwrap_or(state.ready),
                terminating: state.terminating,
            },
        }
    }
}

impl From<Endpoint> for Written {
    fn from(endpoint: Endpoint) -> Self {
        if endpoint == Endpoint::ready(endpoint.address) {
            return Self::Address(endpoint.address);
        }
        Self::State(State {
            address: endpoint.address,
            ready: endpoint.ready,
            serving: Some(endpoint.serving),
            terminating: endpoint.terminating,
        })
    }
}

impl Revision {
    /// The pods that requests may go to, best kind first: those that are ready, else those that still serve.
    #[must_use]
    pub fn usable(&self) -> Vec<Endpoint> {
        let of = |wanted: fn(&Endpoint) -> bool| -> Vec<Endpoint> {
            let found = self.endpoints.iter().filter(|endpoint| wanted(endpoint));
            found.copied().collect()
        };
        let ready = of(|endpoint| endpoint.ready);
        if ready.is_empty() {
            of(|endpoint| endpoint.serving)
        } else {
            ready
        }
    }
}

impl Table {
    /// Finds what no single field shows to be wrong.
    ///
    /// # Errors
    /// The first thing found.
    pub fn check(&self) -> Result<(), TableError> {
        let Routers { live, index } = self.routers;
        if index >= live.get() {
            return Err(TableError::Index { index, live });
        }
        self.check_hosts()?;
        for (name, service) in &self.services {
            service.check(name)?;
        }
        Ok(())
    }

    /// The same after a change of this service alone, in a table that was in order: of the others only their hosts are
    /// looked at, and only where this one has any.
    ///
    /// # Errors
    /// What contradicts what.
    pub fn check_one(&self, name: &ServiceName) -> Result<(), TableError> {
        let Some(service) = self.services.get(name) else {
            return Ok(());
        };
        if !service.hosts.is_empty() {
            self.check_hosts()?;
        }
        service.check(name)
    }

    fn check_hosts(&self) -> Result<(), TableError> {
        let mut hosts = HashMap::new();
        for (name, service) in &self.services {
            for host in &service.hosts {
                if let Some(first) = hosts.insert(host.to_ascii_lowercase(), name) {
                    return Err(TableError::Host {
                        host: host.clone(),
                        first: first.clone(),
                        second: name.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

impl Service {
    fn check(&self, name: &ServiceName) -> Result<(), TableError> {
        let mut names = BTreeSet::new();
        if let Some(twice) = self.revisions.iter().find(|r| !names.insert(&*r.name)) {
            return Err(TableError::Revision {
                service: name.clone(),
                revision: twice.name.clone(),
            });
        }
        if let Some((wrong, what)) = self.routing.wrong_name() {
            return Err(TableError::Session {
                service: name.clone(),
                name: wrong.to_owned(),
                what,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
