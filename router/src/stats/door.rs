//! Who may read the stream: whoever is on this machine, who has the token of a file, or one ServiceAccount of the cluster.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::http::{HeaderMap, StatusCode, header};
use kube::Client;
use ortolan_stats::AUDIENCE;
use subtle::ConstantTimeEq;

use super::keyring::{Keyring, Refused};
use crate::{failure::Failure, options, source::kubernetes};

/// What opens the stream.
#[derive(Clone)]
pub enum Door {
    /// Nothing is needed: the address is one of loopback.
    Open,
    /// The token in this file.
    Secret(PathBuf),
    /// A token that the API server gave to a ServiceAccount.
    Account(Arc<Keyring>),
}

/// The token in a file, without the space around it.
fn token(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        token => Ok(token.to_owned()),
    }
}

impl Door {
    /// As the options say; the keys of the API server are asked for through this client, by default the cluster's own.
    ///
    /// # Errors
    /// When the token cannot be read, there is no cluster, or neither is asked for and the address can be reached from
    /// elsewhere.
    pub async fn of(options: &options::Stats, client: Option<Client>) -> Result<Self, Failure> {
        if let Some(path) = &options.stats_token_file {
            token(path).map_err(|why| {
                Failure::Option(format!(
                    "--stats-token-file {}: {why}; write a token into it, for instance 32 random letters",
                    path.display()
                ))
            })?;
            return Ok(Self::Secret(path.clone()));
        }
        if let Some(reader) = &options.stats_reader {
            let client = match client {
                Some(client) => client,
                None => kubernetes::client().await.map_err(no_cluster)?,
            };
            let keyring = Arc::new(Keyring::new(client, reader.clone()));
            let begins = Arc::clone(&keyring);
            tokio::spawn(async move { begins.begin().await });
            return Ok(Self::Account(keyring));
        }
        match options.stats {
            Some(address) if !address.ip().is_loopback() => Err(Failure::Option(format!(
                "--stats {address} could be read by everybody: give --stats-reader, --stats-token-file, or an address of loopback such as 127.0.0.1:9091"
            ))),
            _ => Ok(Self::Open),
        }
    }

    /// Why a request may not read; `None`: it may.
    pub async fn refuses(&self, headers: &HeaderMap) -> Option<(StatusCode, String)> {
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok()?.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let given = given.map(|(_, token)| token.trim());
        match self {
            Self::Open => None,
            Self::Secret(path) => by_secret(path, given),
            Self::Account(keyring) => by_account(keyring, given).await,
        }
    }
}

fn no_cluster(failure: Failure) -> Failure {
    match failure {
        Failure::Cluster(why) => Failure::Option(format!(
            "--stats-reader asks an API server for its keys, and no cluster is configured ({why}): outside of one give --stats-token-file"
        )),
        other => other,
    }
}

fn by_secret(path: &Path, given: Option<&str>) -> Option<(StatusCode, String)> {
    let right = match token(path) {
        Ok(right) => right,
        Err(why) => {
            tracing::error!("the token in {} cannot be read: {why}", path.display());
            let message = "the router cannot read its token: its log says why";
            return Some((StatusCode::SERVICE_UNAVAILABLE, message.to_owned()));
        }
    };
    let is_right = given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(right.as_bytes())));
    let message = "send the router's token, as Authorization: Bearer TOKEN";
    (!is_right).then(|| (StatusCode::UNAUTHORIZED, message.to_owned()))
}

async fn by_account(keyring: &Keyring, given: Option<&str>) -> Option<(StatusCode, String)> {
    let Some(given) = given else {
        let reader = keyring.reader();
        let message = format!(
            "send a token of {reader} for the audience {AUDIENCE}, as Authorization: Bearer TOKEN"
        );
        return Some((StatusCode::UNAUTHORIZED, message));
    };
    match keyring.check(given).await {
        Ok(()) => None,
        Err(Refused::Bad(bad)) => {
            let message = format!("this token does not open the stream: {bad}");
            Some((StatusCode::UNAUTHORIZED, message))
        }
        Err(Refused::NoKeys) => {
            let message = "the router has no keys of the API server to check tokens with: its log says why; try again";
            Some((StatusCode::SERVICE_UNAVAILABLE, message.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;
    use serde_json::Value;

    use super::*;
    use crate::options::Options;

    /// A Deployment of what the chart renders, its pod's spec.
    fn pod(golden: &str, component: &str) -> Value {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/tests/golden");
        let text = fs::read_to_string(folder.join(golden)).unwrap();
        let mut all = text.split("\n---\n").filter_map(|one| {
            let object: Value = serde_saphyr::from_str(one).ok()?;
            let pod = &object["spec"]["template"];
            let is = object["kind"] == "Deployment"
                && pod["metadata"]["labels"]["app.kubernetes.io/component"] == component;
            is.then(|| pod["spec"].clone())
        });
        all.next().unwrap()
    }

    #[test]
    fn the_chart_gives_the_operator_the_token_that_its_routers_want() {
        for golden in ["all-switches.yaml", "watched.yaml"] {
            let (router, operator) = (pod(golden, "router"), pod(golden, "operator"));
            let args = router["containers"][0]["args"].as_array().unwrap();
            let args = args.iter().map(|arg| arg.as_str().unwrap());
            let ip = ["ortolan-router", "--pod-ip=10.0.0.1"];
            let options = Options::try_parse_from(ip.into_iter().chain(args)).unwrap();
            let account = operator["serviceAccountName"].as_str().unwrap();
            assert_eq!(
                options.stats.stats_reader.unwrap().to_string(),
                format!("system:serviceaccount:ortolan-system:{account}"),
                "{golden}"
            );
            let shown = "/volumes/0/projected/sources/0/serviceAccountToken/audience";
            assert_eq!(operator.pointer(shown).unwrap(), AUDIENCE, "{golden}");
        }
    }
}
