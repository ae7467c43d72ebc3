//! Gets a golden set and its images over http(s): bounded, without credentials, and only from elsewhere.
//!
//! The address is chosen by whoever may write an InferenceService, and the operator stands where they may not: it fetches
//! nothing from its own machine ([`Reach::Elsewhere`]), follows redirects under the same rule, sends no credentials, uses no
//! proxy, and its errors quote nothing of what it got. Services of the cluster are reached, as model stores are.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Response,
    body::{Body, Bytes, Incoming},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};
use tower_service::Service;
use url::{Host, Url};

use super::{Trouble, innermost, pods::AGENT};

const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What may be fetched from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Not this machine, nor what only machines of this link answer (169.254.169.254 among them: a cloud's metadata).
    Elsewhere,
    /// Anything: for somebody's own machine, and for tests.
    Anywhere,
}

impl Reach {
    fn allows(self, address: IpAddr) -> bool {
        if self == Self::Anywhere {
            return true;
        }
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                !(v4.is_loopback()
                    || v4.is_link_local()
                    || v4.is_unspecified()
                    || v4.is_broadcast()
                    || v4.is_multicast())
            }
            IpAddr::V6(v6) => {
                !(v6.is_loopback()
                    || v6.is_unicast_link_local()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    // Where one cloud has its metadata.
                    || v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254])
            }
        }
    }
}

/// Asks for the addresses of names, and leaves out those that are not allowed.
#[derive(Clone, Debug)]
struct Names(Reach);

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let reach = self.0;
        async move {
            let name = name.as_str().to_owned();
            let asked = tokio::task::spawn_blocking(move || (name.as_str(), 0).to_socket_addrs());
            let found = asked.await.map_err(io::Error::other)??;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| reach.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::other(NOT_HERE));
            }
            Ok(allowed.into_iter())
        }
        .boxed()
    }
}

const NOT_HERE: &str = "its address is of this machine or of its link only";

/// Fetches files.
#[derive(Clone, Debug)]
pub(super) struct Store {
    client: Client<HttpsConnector<HttpConnector<Names>>, Empty<Bytes>>,
    reach: Reach,
}

fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

impl Store {
    pub(super) fn new(reach: Reach) -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new_with_resolver(Names(reach));
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls()?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            // A file and its images, seldom.
            .pool_max_idle_per_host(2)
            .build(connector);
        Ok(Self { client, reach })
    }

    /// What stands at an address, at most `limit` bytes, within `patience`.
    pub(super) async fn get(
        &self,
        url: &Url,
        limit: usize,
        patience: Duration,
    ) -> Result<Bytes, Trouble> {
        let work = async {
            let response = self.follow(url).await?;
            let at = shown(url);
            let too_large =
                || Trouble::Final(format!("{at} has more than {limit} bytes, and may not"));
            let body = response.into_body();
            if body.size_hint().lower() > limit as u64 {
                return Err(too_large());
            }
            match Limited::new(body, limit).collect().await {
                Ok(whole) => Ok(whole.to_bytes()),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
                Err(error) => Err(Trouble::Passing(format!("{at} broke off: {error}"))),
            }
        };
        match tokio::time::timeout(patience, work).await {
            Ok(got) => got,
            Err(_) => Err(Trouble::Passing(format!(
                "{} did not come within {} s",
                shown(url),
                patience.as_secs()
            ))),
        }
    }

    async fn follow(&self, url: &Url) -> Result<Response<Incoming>, Trouble> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            check(&at, self.reach)?;
            let response = self.once(&at).await?;
            let status = response.status();
            if status.is_redirection() {
                at = redirected(&at, &response)?;
                continue;
            }
            if status.is_success() {
                return Ok(response);
            }
            let why = format!("{} answers {status}", shown(url));
            return Err(match status {
                StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS => Trouble::Passing(why),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Trouble::Final(format!(
                    "{why}: the operator has no credentials for it; put the golden set where it can be read without"
                )),
                _ if status.is_client_error() => Trouble::Final(format!(
                    "{why}; correct rollout.validation.uri or put the file there"
                )),
                _ => Trouble::Passing(why),
            });
        }
        let why = format!("{} redirects more than {MAX_REDIRECTS} times", shown(url));
        Err(Trouble::Final(why))
    }

    async fn once(&self, at: &Url) -> Result<Response<Incoming>, Trouble> {
        let wrong = |error: &dyn std::fmt::Display| {
            Trouble::Final(format!("{} cannot be asked for: {error}", shown(at)))
        };
        let uri: Uri = at.as_str().parse().map_err(|error| wrong(&error))?;
        let request = Request::get(uri)
            .header(header::USER_AGENT, HeaderValue::from_static(AGENT))
            .header(
                header::ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            )
            .body(Empty::new())
            .map_err(|error| wrong(&error))?;
        self.client.request(request).await.map_err(|error| {
            Trouble::Passing(format!(
                "{} is not reached: {}",
                shown(at),
                innermost(&error)
            ))
        })
    }
}

/// Whether an address may be asked, as far as it can be seen.
fn check(url: &Url, reach: Reach) -> Result<(), Trouble> {
    let no = |why: &str| Err(Trouble::Final(format!("{} {why}", shown(url))));
    if !matches!(url.scheme(), "http" | "https") {
        return no("is not fetched: put the golden set at an http or https address");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Trouble::Final(
            "the golden set's address has a password in it, and none is sent: put the set where it can be read without"
                .to_owned(),
        ));
    }
    let address = match url.host() {
        Some(Host::Ipv4(v4)) => IpAddr::V4(v4),
        Some(Host::Ipv6(v6)) => IpAddr::V6(v6),
        Some(Host::Domain(_)) => return Ok(()),
        None => return no("names no host"),
    };
    if reach.allows(address) {
        return Ok(());
    }
    no(&format!("is not fetched: {NOT_HERE}"))
}

/// An address as it may be told: its query is often a password.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Only an address without a host has no place for one.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

fn redirected(at: &Url, response: &Response<Incoming>) -> Result<Url, Trouble> {
    let to = response.headers().get(header::LOCATION);
    let to = to.and_then(|to| at.join(to.to_str().ok()?).ok());
    match to {
        Some(to) if at.scheme() == "https" && to.scheme() != "https" => {
            Err(Trouble::Final(format!(
                "{} redirects from https to {}, where anybody on the way could change it",
                shown(at),
                to.scheme()
            )))
        }
        Some(to) => Ok(to),
        None => Err(Trouble::Final(format!(
            "{} answers {} without an address to go to",
            shown(at),
            response.status()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_fetched_from_this_machine_or_its_link() {
        for (address, is_allowed) in [
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("fd00:ec2::254", false),
            ("10.96.0.10", true),
            ("192.168.1.1", true),
            ("93.184.216.34", true),
            ("fd00::1", true),
            ("2606:2800:220:1::1", true),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(Reach::Elsewhere.allows(address), is_allowed, "{address}");
            assert!(Reach::Anywhere.allows(address));
        }
    }

    #[test]
    fn an_address_that_is_not_asked_says_why() {
        for (url, part) in [
            (
                "s3://b/golden.jsonl",
                "put the golden set at an http or https address",
            ),
            ("file:///golden.jsonl", "http or https"),
            ("https://me:secret@e/golden.jsonl", "has a password in it"),
            ("http://127.0.0.1/golden.jsonl", "of this machine"),
            ("http://[::1]:80/golden.jsonl", "of this machine"),
            ("http://2130706433/", "of this machine"),
            ("http://0x7f.1/", "of this machine"),
        ] {
            let parsed = Url::parse(url).expect("a URL");
            let error = check(&parsed, Reach::Elsewhere).expect_err(url);
            assert!(matches!(error, Trouble::Final(_)), "{url}");
            let said = error.to_string();
            assert!(said.contains(part) && !said.contains("secret"), "{said}");
        }
        let fine = Url::parse("http://model-store.models.svc/golden.jsonl").expect("a URL");
        assert_eq!(check(&fine, Reach::Elsewhere), Ok(()));
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_asked_either() {
        let store = Store::new(Reach::Elsewhere).expect("a store");
        let url = Url::parse("http://localhost:9/golden.jsonl").expect("a URL");
        let error = store
            .get(&url, 10, Duration::from_secs(5))
            .await
            .expect_err("localhost");
        assert!(error.to_string().contains(NOT_HERE), "{error}");
    }
}
