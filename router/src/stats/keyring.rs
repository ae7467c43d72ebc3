//! The keys by which the API server signs the tokens of ServiceAccounts: asks for them, keeps them, asks again.
//!
//! When: at the start, for a token whose key or issuer is not known, and when a reader comes after ten minutes.
//! Invariants: it is asked once in ten seconds at most, whatever anybody sends (where it answers 429 or 503 the client
//! tries again within three); what was read holds as long as the API
//! server is away; nothing is written.

use std::time::Duration;

use http::Request;
use kube::Client;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::token::{Account, Bad, Keys};

const CONFIGURATION: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
/// Between two questions.
const PAUSE: Duration = Duration::from_secs(10);
/// A key that was withdrawn opens nothing after that.
const OLD: Duration = Duration::from_secs(600);
/// For both answers. The operator waits five seconds for its stream.
const LIMIT: Duration = Duration::from_secs(3);

/// Why nobody reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The token is not the right one.
    Bad(Bad),
    /// No key was ever read.
    NoKeys,
}

/// The keys, and whom they are to prove.
pub struct Keyring {
    client: Client,
    reader: Account,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<Keys>,
    read: Option<Instant>,
    asked: Option<Instant>,
    /// What was told last: it is not told twice.
    told: Option<String>,
}

impl State {
    fn check(&self, token: &str, reader: &Account) -> Result<(), Refused> {
        let keys = self.keys.as_ref().ok_or(Refused::NoKeys)?;
        keys.check(token, reader).map_err(Refused::Bad)
    }

    fn is_old(&self) -> bool {
        self.read.is_none_or(|read| read.elapsed() > OLD)
    }
}

impl Keyring {
    /// Without keys, as yet.
    #[must_use]
    pub fn new(client: Client, reader: Account) -> Self {
        Self {
            client,
            reader,
            state: Mutex::default(),
        }
    }

    /// Who may read.
    #[must_use]
    pub const fn reader(&self) -> &Account {
        &self.reader
    }

    /// Asks for the keys, before anybody comes: the log says at once what is missing.
    pub async fn begin(&self) {
        self.ask(&mut *self.state.lock().await).await;
    }

    /// Whether a token opens the stream.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn check(&self, token: &str) -> Result<(), Refused> {
        let mut state = self.state.lock().await;
        if state.is_old() {
            self.ask(&mut state).await;
        }
        let checked = state.check(token, &self.reader);
        match checked {
            Err(Refused::Bad(bad)) if bad.is_perhaps_newer() && self.ask(&mut state).await => {
                state.check(token, &self.reader)
            }
            checked => checked,
        }
    }

    /// Whether there are keys that were read now.
    async fn ask(&self, state: &mut State) -> bool {
        let now = Instant::now();
        if state.asked.is_some_and(|asked| now < asked + PAUSE) {
            return false;
        }
        state.asked = Some(now);
        let read = timeout(LIMIT, fetch(&self.client)).await;
        let why = match read.unwrap_or_else(|_| Err(format!("no answer in {} s", LIMIT.as_secs())))
        {
            Ok(keys) => {
                if state.keys.is_none() || state.told.is_some() {
                    let (issuer, reader) = (keys.issuer(), &self.reader);
                    tracing::info!(%issuer, %reader, "the API server's keys for tokens are read");
                }
                (state.keys, state.read, state.told) = (Some(keys), Some(now), None);
                return true;
            }
            Err(why) => why,
        };
        if state.told.as_ref() != Some(&why) {
            let until = match state.keys {
                Some(_) => "those that were read before hold",
                None => "nobody can read the counts of this router until then",
            };
            tracing::warn!(
                "the API server's keys for tokens of ServiceAccounts cannot be read, {until}: {why}"
            );
            state.told = Some(why);
        }
        false
    }
}

async fn fetch(client: &Client) -> Result<Keys, String> {
    let (configuration, keys) =
        futures::future::try_join(text(client, CONFIGURATION), text(client, KEYS)).await?;
    Keys::read(&configuration, &keys)
}

async fn text(client: &Client, path: &str) -> Result<String, String> {
    let request = Request::get(path).body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    client.request_text(request).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "the right to get {path} is missing: Kubernetes grants it by the ClusterRoleBinding system:service-account-issuer-discovery, to every ServiceAccount; bind that ClusterRole to this router's again"
        ),
        kube::Error::Api(status) if status.code == 404 => format!(
            "it has no {path}: it tells its keys only where its --service-account-issuer is an https URL"
        ),
        kube::Error::Api(status) => {
            format!("{path}: it answers {} {}", status.code, status.message)
        }
        error => format!("{path}: {error}"),
    })
}

#[cfg(test)]
mod tests;
