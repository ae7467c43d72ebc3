//! `ortolan predict`: asks a service's model from outside of the cluster.
//!
//! ```text
//! Service ─▶ route (pure): routers or pods ─▶ a ready pod ─▶ port-forward ─▶ ask (HTTP/1.1) ─▶ answer (pure)
//! ```

mod answer;
mod ask;
mod request;
mod route;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, ResourceExt as _, api::ListParams};

use crate::{
    cluster::{Cluster, Found},
    error::Error as CliError,
    exit::Exit,
    options::Predict,
    output,
};
use route::Way;

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read.
    #[error("{file} cannot be read: {source}")]
    File {
        /// Which.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not the JSON of a request.
    #[error(
        "{file} is no JSON ({why}): a request looks like {{\"inputs\": [{{\"name\": …, \"shape\": […], \"datatype\": …, \"data\": […]}}]}}; for a photograph, a text or CSV write -f"
    )]
    Json {
        /// Which.
        file: String,
        /// Where it went wrong.
        why: serde_json::Error,
    },
    /// No pod is ready.
    #[error("no pod of {of} is ready: {hint}")]
    NoPod {
        /// Whose.
        of: String,
        /// Where to look.
        hint: String,
    },
    /// The Service is of a kind that cannot be followed.
    #[error(
        "the Service {name} is an alias of {alias}, which is no Service of this cluster: write --revision REVISION to ask a pod directly (`ortolan status {name}` lists them)"
    )]
    Alias {
        /// Its name.
        name: String,
        /// What it stands for.
        alias: String,
    },
    /// No such port.
    #[error("the pod {0} has no port that answers requests")]
    NoPort(String),
    /// The port-forward failed.
    #[error("no connection to the pod {pod}: {why}")]
    Forward {
        /// Which.
        pod: String,
        /// Why.
        why: String,
    },
    /// The connection broke.
    #[error("the request to the pod {pod} failed: {why}")]
    Http {
        /// Which.
        pod: String,
        /// Why.
        why: String,
    },
    /// It took too long.
    #[error("no answer within {0} s: write a longer --timeout, or look at `ortolan status`")]
    Late(u64),
    /// The answer says no.
    #[error("{model} answers {code}: {says}")]
    Code {
        /// Who.
        model: String,
        /// HTTP's code.
        code: u16,
        /// What it says.
        says: String,
    },
}

/// Asks and prints the answer.
///
/// # Errors
/// A sentence.
pub async fn run(cluster: &Cluster, options: &Predict) -> Result<Exit, CliError> {
    let found = cluster.service(&options.name).await?;
    let spec = &found.service.spec;
    let model = options.model.clone().or_else(|| spec.model.name.clone());
    let model = model.unwrap_or_else(|| options.name.clone());
    let input = request::read(options)?;
    let way = way(cluster, &found, options).await?;
    let (namespace, pod, port) = pod(cluster, &found, &way).await?;
    let host = format!("{}.{}.svc", options.name, cluster.namespace);
    let request = request::build(&model, &host, input)?;
    let asked = ask(cluster, &namespace, &pod, port, request);
    let answer = match options.timeout.0 {
        None => asked.await?,
        Some(limit) => match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Error::Late(limit.as_secs()).into()),
        },
    };
    if !answer.is_success() {
        return Err(Error::Code {
            model,
            code: answer.code,
            says: answer.says(),
        }
        .into());
    }
    output::print(&answer.text(options.output)?)?;
    Ok(Exit::Done)
}

/// Which way to go.
async fn way(cluster: &Cluster, found: &Found, options: &Predict) -> Result<Way, CliError> {
    if let Some(revision) = &options.revision {
        return Ok(route::revision(&found.service, revision)?);
    }
    let api: Api<Service> = cluster.api();
    let service = api.get_opt(&options.name).await;
    let service = service.map_err(CliError::api(format!(
        "reading the Service {}",
        options.name
    )))?;
    Ok(route::route(&found.service, service.as_ref())?)
}

/// The namespace and name of a ready pod on the way, and its port.
async fn pod(
    cluster: &Cluster,
    found: &Found,
    way: &Way,
) -> Result<(String, String, u16), CliError> {
    let (namespace, selector, port, of, hint) = match way {
        Way::Pods { revision, selector } => {
            let hint = format!("`ortolan status {}` tells why", found.name());
            (
                cluster.namespace.clone(),
                selector.clone(),
                route::server_port(),
                revision.clone(),
                hint,
            )
        }
        Way::Routers { namespace, name } => {
            let (selector, port) = routers(cluster, namespace, name).await?;
            let hint = format!(
                "look at `kubectl get pods -n {namespace}`; --revision REVISION asks a pod of the service past them"
            );
            (
                namespace.clone(),
                selector,
                port,
                format!("the routers ({namespace}/{name})"),
                hint,
            )
        }
    };
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace);
    let pods = api.list(&ListParams::default().labels(&selector)).await;
    let pods = pods
        .map_err(CliError::api(format!("listing the pods of {of}")))?
        .items;
    let ready = route::ready(&pods).ok_or(Error::NoPod { of, hint })?;
    let number = route::port(&port, ready).ok_or_else(|| Error::NoPort(ready.name_any()))?;
    Ok((namespace, ready.name_any(), number))
}

async fn routers(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> Result<(String, route::Port), CliError> {
    let api: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let service = api.get_opt(name).await;
    let service = service.map_err(CliError::api(format!(
        "reading the routers' Service {namespace}/{name} (--revision REVISION asks a pod of the service past them)"
    )))?;
    let alias = || Error::Alias {
        name: name.to_owned(),
        alias: format!("{name}.{namespace}"),
    };
    let service = service.ok_or_else(alias)?;
    Ok(route::behind(&service).ok_or_else(alias)?)
}

async fn ask(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
    request: ask::Request,
) -> Result<answer::Answer, Error> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let failed = |why: String| Error::Forward {
        pod: pod.to_owned(),
        why,
    };
    let mut forward = api.portforward(pod, &[port]).await.map_err(|error| {
        failed(format!(
            "{error}; it takes the right to `create` `pods/portforward` in namespace {namespace}"
        ))
    })?;
    let stream = forward
        .take_stream(port)
        .ok_or_else(|| failed("no stream".into()))?;
    let trouble = forward.take_error(port);
    match ask::ask(stream, request).await {
        Ok(answer) => Ok(answer),
        Err(why) => {
            // The kubelet's own words, where it said something: a moment is enough, since the stream is closed.
            let said = async { trouble?.await };
            let said = tokio::time::timeout(Duration::from_millis(500), said)
                .await
                .ok()
                .flatten();
            Err(match said {
                Some(said) => failed(said),
                None => Error::Http {
                    pod: pod.to_owned(),
                    why,
                },
            })
        }
    }
}
