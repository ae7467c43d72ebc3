//! All services, found by what a request says.
//!
//! Readers take no lock. A change of one service copies two maps of pointers (1 000 services: tens of microseconds),
//! and nothing of the others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{
    hold::Bounds,
    live::Live,
    metrics::Metrics,
    table::{Routers, Service, ServiceName, Table, TableError},
    target::{Lost, Names, Target},
};

/// All services.
pub struct Directory {
    names: Names,
    bounds: Bounds,
    metrics: Metrics,
    services: ArcSwap<Services>,
    wakes: watch::Sender<()>,
    /// What `services` was made of; locked while it changes.
    table: Mutex<Option<Table>>,
}

#[derive(Clone, Default)]
struct Services {
    by_name: HashMap<Box<str>, Arc<Live>>,
    by_host: HashMap<Box<str>, Arc<Live>>,
}

/// A service and what of the path is for it.
pub struct Found {
    /// The service.
    pub live: Arc<Live>,
    /// How many bytes of the path named it.
    pub prefix: usize,
}

impl Directory {
    /// Without services.
    #[must_use]
    pub fn new(names: Names, bounds: Bounds, metrics: Metrics) -> Self {
        Self {
            names,
            bounds,
            metrics,
            services: ArcSwap::default(),
            wakes: watch::Sender::default(),
            table: Mutex::default(),
        }
    }

    /// Whether a table was ever there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// All services.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Live>> {
        self.services.load().by_name.values().cloned().collect()
    }

    /// Changes whenever the first request of a service has to wait.
    #[must_use]
    pub fn wakes(&self) -> watch::Receiver<()> {
        self.wakes.subscribe()
    }

    /// What is served now.
    #[must_use]
    pub fn table(&self) -> Option<Table> {
        self.table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The service that a request names.
    ///
    /// # Errors
    /// When it names none, or one that is not there.
    pub fn find(
        &self,
        header: Option<&[u8]>,
        authority: Option<&str>,
        path: &str,
    ) -> Result<Found, Lost> {
        let services = self.services.load();
        let named = |namespace: &str, name: &str, prefix| {
            // As the key is written, without the machinery of formats: for each request.
            let mut key = String::with_capacity(namespace.len() + 1 + name.len());
            key.push_str(namespace);
            key.push('/');
            key.push_str(name);
            match services.by_name.get(&*key) {
                Some(live) => Ok(Found {
                    live: Arc::clone(live),
                    prefix,
                }),
                None => Err(Lost::Service {
                    namespace: namespace.chars().take(64).collect(),
                    name: name.chars().take(64).collect(),
                }),
            }
        };
        match self.names.target(header, authority, path)? {
            Target::Service {
                namespace,
                name,
                prefix,
            } => named(&namespace, &name, prefix),
            Target::Host(host) => {
                if let Some(live) = services.by_host.get(&*host) {
                    return Ok(Found {
                        live: Arc::clone(live),
                        prefix: 0,
                    });
                }
                let (namespace, name) = self.names.by_form(&host)?;
                named(namespace, name, 0)
            }
        }
    }

    /// Takes a whole table: services that are not in it are gone.
    ///
    /// # Errors
    /// When the table contradicts itself; nothing changes then.
    pub fn replace(&self, table: Table) -> Result<(), TableError> {
        table.check()?;
        let mut had = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let before = had.take().unwrap_or_default();
        let gone = before
            .services
            .into_keys()
            .filter(|name| !table.services.contains_key(name));
        let gone: Vec<ServiceName> = gone.collect();
        self.publish(gone, &table.services, table.routers, true);
        *had = Some(table);
        Ok(())
    }

    /// Takes changes of single services; `None`: it is gone. A change that makes the table contradict itself is left out
    /// and told in the log.
    pub fn change(&self, changes: BTreeMap<ServiceName, Option<Service>>) {
        let mut had = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = had.get_or_insert_default();
        let (mut gone, mut changed) = (Vec::new(), BTreeMap::new());
        for (name, service) in changes {
            match service {
                None => {
                    table.services.remove(&name);
                    gone.push(name);
                }
                Some(service) => {
                    let before = table.services.insert(name.clone(), service.clone());
                    if let Err(error) = table.check_one(&name) {
                        tracing::warn!(service = %name, %error, "a change is left out");
                        match before {
                            Some(before) => table.services.insert(name, before),
                            None => table.services.remove(&name),
                        };
                        continue;
                    }
                    changed.insert(name, service);
                }
            }
        }
        let routers = table.routers;
        self.publish(gone, &changed, routers, false);
    }

    /// Takes another number of routers.
    pub fn routers(&self, routers: Routers) {
        let table = self.table();
        let Some(mut table) = table.filter(|table| table.routers != routers) else {
            return;
        };
        table.routers = routers;
        if let Err(error) = self.replace(table) {
            tracing::warn!(%error, "the number of routers is not taken");
        }
    }

    /// Under the table's lock: one writer at a time.
    fn publish(
        &self,
        gone: Vec<ServiceName>,
        changed: &BTreeMap<ServiceName, Service>,
        routers: Routers,
        is_whole: bool,
    ) {
        let mut services = Services::clone(&self.services.load());
        if is_whole {
            services.by_host.clear();
        }
        let mut removed = Vec::new();
        for name in gone {
            if let Some(live) = services.by_name.remove(&*name.to_string()) {
                services
                    .by_host
                    .retain(|_, other| !Arc::ptr_eq(other, &live));
                removed.push(live);
            }
        }
        for (name, service) in changed {
            let live = match services.by_name.get(&*name.to_string()) {
                Some(live) => {
                    live.update(service.clone(), routers);
                    Arc::clone(live)
                }
                None => {
                    let (name, service) = (name.clone(), service.clone());
                    Arc::new(Live::new(
                        name,
                        service,
                        routers,
                        self.bounds,
                        &self.metrics,
                        self.wakes.clone(),
                    ))
                }
            };
            if !is_whole {
                services
                    .by_host
                    .retain(|_, other| !Arc::ptr_eq(other, &live));
            }
            for host in &service.hosts {
                let host = host.to_ascii_lowercase().into_boxed_str();
                services.by_host.insert(host, Arc::clone(&live));
            }
            services
                .by_name
                .insert(name.to_string().into_boxed_str(), live);
        }
        self.services.store(Arc::new(services));
        removed.iter().for_each(|live| live.remove());
    }

    /// Sends away all that wait: the router ends.
    pub fn end(&self) {
        self.services
            .load()
            .by_name
            .values()
            .for_each(|live| live.end());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Without a table.
    pub(crate) fn without_table() -> Directory {
        let names = Names {
            cluster_domain: "cluster.local".into(),
            own: Vec::new(),
        };
        let bounds = Bounds {
            requests: 9,
            bytes: 9,
        };
        Directory::new(names, bounds, Metrics::default())
    }

    fn directory(text: &str) -> Directory {
        let directory = without_table();
        assert!(!directory.is_ready());
        directory
            .replace(serde_saphyr::from_str(text).unwrap())
            .unwrap();
        directory
    }

    fn found(directory: &Directory, host: &str, path: &str) -> Result<String, String> {
        let found = directory
            .find(None, Some(host), path)
            .map_err(|lost| lost.to_string())?;
        Ok(format!("{} {}", found.live.name, &path[found.prefix..]))
    }

    #[test]
    fn services_are_found_by_name_by_host_and_by_path() {
        let directory =
            directory("services: {demo/cats: {hosts: [Cats.Example.com]}, demo/dogs: {}}");
        assert!(directory.is_ready());
        for (host, path, service) in [
            ("cats.demo", "/v2", "demo/cats /v2"),
            ("dogs.demo.svc.cluster.local:80", "/v2", "demo/dogs /v2"),
            ("CATS.example.COM:443", "/v2", "demo/cats /v2"),
            ("127.0.0.1:8080", "/demo/dogs/v2", "demo/dogs /v2"),
        ] {
            assert_eq!(
                found(&directory, host, path).as_deref(),
                Ok(service),
                "{host}"
            );
        }
        let error = found(&directory, "birds.demo", "/v2").unwrap_err();
        assert_eq!(error, "there is no service birds in the namespace demo");
        let error = found(&directory, "dogs.example.com", "/v2").unwrap_err();
        assert!(
            error.contains("no service has the host dogs.example.com"),
            "{error}"
        );
        let by_header = directory
            .find(Some(b"demo/dogs"), Some("cats.demo"), "/")
            .unwrap();
        assert_eq!(by_header.live.name.name(), "dogs");
    }

    #[test]
    fn changes_come_and_go_and_a_contradiction_changes_nothing() {
        let directory = directory("services: {demo/cats: {hosts: [x.y]}, demo/dogs: {}}");
        let table = |text: &str| directory.replace(serde_saphyr::from_str(text).unwrap());
        assert!(table("services: {demo/a: {hosts: [x.y]}, demo/b: {hosts: [x.y]}}").is_err());
        assert!(found(&directory, "cats.demo", "/").is_ok());
        let change = |name: &str, service: Option<Service>| {
            let name = ServiceName::new("demo", name).unwrap();
            directory.change(BTreeMap::from([(name, service)]));
        };
        let with_host = |host: &str| {
            Some(Service {
                hosts: vec![host.into()],
                ..Service::default()
            })
        };
        change("dogs", with_host("x.y"));
        assert_eq!(
            found(&directory, "x.y", "/").as_deref(),
            Ok("demo/cats /"),
            "it belongs to the first"
        );
        change("cats", with_host("z.y"));
        assert!(found(&directory, "x.y", "/").is_err());
        assert_eq!(found(&directory, "z.y", "/").as_deref(), Ok("demo/cats /"));
        change("cats", None);
        assert!(
            found(&directory, "z.y", "/").is_err() && found(&directory, "cats.demo", "/").is_err()
        );
        table("services: {}").unwrap();
        assert!(found(&directory, "dogs.demo", "/").is_err());
        assert!(directory.is_ready());
    }
}
