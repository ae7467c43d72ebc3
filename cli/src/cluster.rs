//! The cluster as kubectl would reach it, and what is read of it.

use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::ControllerRevision, core::v1::Pod},
};
use kube::{
    Api, Client, Config, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::TypeMeta,
};
use ortolan_crds::{InferenceService, names};
use serde_json::Value;

use crate::{error::Error, near::meant, options::Connection};

/// How long a connection may take: a person waits for it.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(10);

/// A cluster, and the namespace that is meant.
#[derive(Clone)]
pub struct Cluster {
    /// Its client.
    pub client: Client,
    /// The namespace of the command line, the context's, or `default`.
    pub namespace: String,
}

/// A service, as it came and as this program understands it.
#[derive(Clone, Debug)]
pub struct Found {
    /// With fields that this version does not know.
    pub raw: Value,
    /// Without them.
    pub service: InferenceService,
}

impl Found {
    /// The name.
    pub fn name(&self) -> String {
        self.service.name_any()
    }

    /// The namespace.
    pub fn namespace(&self) -> String {
        self.service.namespace().unwrap_or_default()
    }
}

impl Cluster {
    /// Reads the kubeconfig; nothing is asked yet.
    ///
    /// # Errors
    /// When there is none, or it has not what was asked for.
    pub async fn connect(options: &Connection) -> Result<Self, Error> {
        let mut config = config(options).await?;
        config.connect_timeout = Some(CONNECT);
        let namespace = options.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(Error::Client)?;
        Ok(Self { client, namespace })
    }

    /// Objects of the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One service.
    ///
    /// # Errors
    /// When it is not there (names that are near are told), or the API server says no.
    pub async fn service(&self, name: &str) -> Result<Found, Error> {
        let kind = ApiResource::erase::<InferenceService>(&());
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &kind);
        let got = api.get_opt(name).await;
        let got = got.map_err(Error::api(format!(
            "reading InferenceService {name} in namespace {}",
            self.namespace
        )))?;
        match got {
            Some(object) => found(object),
            None => Err(self.no_service(name).await?),
        }
    }

    async fn no_service(&self, name: &str) -> Result<Error, Error> {
        let here = self.services(false).await?;
        let names: Vec<String> = here.iter().map(Found::name).collect();
        let meant = match meant(name, names.iter().map(String::as_str)) {
            nothing if nothing.is_empty() && names.is_empty() => {
                ", nor any other; `ortolan get -A` lists those of all namespaces, -n chooses one"
                    .into()
            }
            nothing if nothing.is_empty() => format!("; there are: {}", names.join(", ")),
            meant => meant,
        };
        let (name, namespace) = (name.to_owned(), self.namespace.clone());
        Ok(Error::NoService {
            name,
            namespace,
            meant,
        })
    }

    /// The services of the namespace, or of all, by namespace and name.
    ///
    /// # Errors
    /// When the API server says no.
    pub async fn services(&self, of_all_namespaces: bool) -> Result<Vec<Found>, Error> {
        let kind = ApiResource::erase::<InferenceService>(&());
        let (api, of): (Api<DynamicObject>, _) = match of_all_namespaces {
            true => (
                Api::all_with(self.client.clone(), &kind),
                "all namespaces".into(),
            ),
            false => (
                Api::namespaced_with(self.client.clone(), &self.namespace, &kind),
                format!("namespace {}", self.namespace),
            ),
        };
        let list = api.list(&ListParams::default()).await;
        let list = list.map_err(Error::api(format!("listing the InferenceServices of {of}")));
        let list = list.map_err(|error| match error.code() {
            Some(404) => Error::NotInstalled,
            _ => error,
        })?;
        let mut services: Vec<Found> = list
            .items
            .into_iter()
            .map(found)
            .collect::<Result<_, _>>()?;
        services.sort_by_key(|found| (found.namespace(), found.name()));
        Ok(services)
    }

    /// A service's pods, by name.
    ///
    /// # Errors
    /// When the API server says no.
    pub async fn pods(&self, service: &str) -> Result<Vec<Pod>, Error> {
        let api: Api<Pod> = self.api();
        let of = ListParams::default().labels(&format!("{}={service}", names::SERVICE));
        let pods = api
            .list(&of)
            .await
            .map_err(Error::api(format!("listing the pods of {service}")));
        let mut pods = pods?.items;
        pods.sort_by_key(kube::ResourceExt::name_any);
        Ok(pods)
    }

    /// A service's revisions, the oldest first.
    ///
    /// # Errors
    /// When the API server says no.
    pub async fn revisions(&self, service: &str) -> Result<Vec<ControllerRevision>, Error> {
        let api: Api<ControllerRevision> = self.api();
        let of = ListParams::default().labels(&format!("{}={service}", names::SERVICE));
        let list = api
            .list(&of)
            .await
            .map_err(Error::api(format!("listing the revisions of {service}")));
        let mut revisions = list?.items;
        revisions.sort_by_key(|revision| revision.revision);
        Ok(revisions)
    }
}

async fn config(options: &Connection) -> Result<Config, Error> {
    let kubeconfig = match (&options.kubeconfig, &options.context) {
        (Some(path), _) => Kubeconfig::read_from(path)?,
        (None, Some(_)) => Kubeconfig::read()?,
        (None, None) => return Ok(Config::infer().await?),
    };
    if let Some(context) = &options.context {
        let known: Vec<&str> = kubeconfig
            .contexts
            .iter()
            .map(|context| context.name.as_str())
            .collect();
        if !known.contains(&context.as_str()) {
            let known_text = if known.is_empty() {
                "none".into()
            } else {
                known.join(", ")
            };
            return Err(Error::Context {
                name: context.clone(),
                meant: meant(context, known),
                known: known_text,
            });
        }
    }
    let chosen = KubeConfigOptions {
        context: options.context.clone(),
        ..KubeConfigOptions::default()
    };
    Ok(Config::from_custom_kubeconfig(kubeconfig, &chosen).await?)
}

/// What was asked for, whole and read.
fn found(mut object: DynamicObject) -> Result<Found, Error> {
    object
        .types
        .get_or_insert_with(TypeMeta::resource::<InferenceService>);
    object.managed_fields_mut().clear();
    let name = object.name_any();
    let unreadable = |error: serde_json::Error| Error::Unreadable {
        name,
        why: error.to_string(),
    };
    let raw = serde_json::to_value(object).map_err(|error| Error::Format(error.to_string()))?;
    let service = serde_json::from_value(raw.clone()).map_err(unreadable)?;
    Ok(Found { raw, service })
}
