//! Which service a request is for: by the header that our routes set, by its host, or by its path.
//!
//! Inputs: the value of `x-ortolan-service`, the host or authority, the path, and the names that are the router's own.
//! Output: a namespace and a name, not looked up yet, or a host to look up. Invariant: nothing is guessed; a name
//! without a namespace belongs to nobody, for guessing would let tenants take each other's traffic.

use std::borrow::Cow;

use http::{HeaderName, StatusCode};

/// Names the service, `namespace/name`; routes in front of the router set it.
pub const SERVICE: HeaderName = HeaderName::from_static("x-ortolan-service");

/// First segments of the server's own paths: no namespace is meant by them.
const SERVERS: [&str; 6] = ["v1", "v2", "predict", "metrics", "healthz", "openapi.json"];
/// More of a name is not repeated in an answer.
const REPEATED: usize = 120;

/// The router's own names.
#[derive(Clone, Debug)]
pub struct Names {
    /// What names of the cluster end with.
    pub cluster_domain: String,
    /// Hosts that are the router itself: there the path names the service.
    pub own: Vec<String>,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// This service.
    Service {
        /// Its namespace.
        namespace: Cow<'a, str>,
        /// Its name.
        name: Cow<'a, str>,
        /// How many bytes of the path named it and are not part of what the service sees.
        prefix: usize,
    },
    /// The service that has this host, written in small letters without port and last dot.
    Host(Cow<'a, str>),
}

/// Why a request is for nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// No host.
    #[error(
        "the request has no Host: write the service's name and namespace there, as in Host: name.namespace"
    )]
    NoHost,
    /// A header that names no service.
    #[error("x-ortolan-service is {0:?}: write namespace/name")]
    Header(String),
    /// A name without a namespace.
    #[error(
        "the host {0} has no namespace, and {0} could be a service of any: write {0}.NAMESPACE or {0}.NAMESPACE.svc"
    )]
    Bare(String),
    /// A host that nobody has.
    #[error(
        "no service has the host {host}: write name.namespace, name.namespace.svc or name.namespace.svc.{domain}"
    )]
    Host {
        /// What was looked for.
        host: String,
        /// What names of this cluster end with.
        domain: String,
    },
    /// A path that names no service, on the router's own address.
    #[error(
        "on this address the path names the service, /NAMESPACE/NAME/v2/…, and {0} does not; or send the service's name \
         as the host, name.namespace, or in the header x-ortolan-service: namespace/name"
    )]
    Path(String),
    /// A name that nobody has.
    #[error("there is no service {name} in the namespace {namespace}")]
    Service {
        /// The namespace that was looked in.
        namespace: String,
        /// The name that was looked for.
        name: String,
    },
}

impl Lost {
    /// As HTTP says it.
    #[must_use]
    pub const fn code(&self) -> StatusCode {
        match self {
            Self::NoHost | Self::Header(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::NOT_FOUND,
        }
    }
}

/// Small letters, without port and last dot.
#[must_use]
pub fn normalised(authority: &str) -> Cow<'_, str> {
    let host = match authority.rfind(':') {
        // The colons of an IPv6 address stand in brackets.
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// Not longer than a person reads.
fn shortened(text: &str) -> String {
    text.chars().take(REPEATED).collect()
}

impl Names {
    /// What this request asks for.
    ///
    /// # Errors
    /// When it names no service.
    pub fn target<'a>(
        &self,
        header: Option<&'a [u8]>,
        authority: Option<&'a str>,
        path: &'a str,
    ) -> Result<Target<'a>, Lost> {
        if let Some(header) = header {
            return by_header(header);
        }
        let host = match authority.map(normalised) {
            Some(host) if !host.is_empty() => host,
            _ => return Err(Lost::NoHost),
        };
        if self.is_own(&host) {
            return by_path(path);
        }
        Ok(Target::Host(host))
    }

    /// An address, `localhost`, or one of the names that were given to the router.
    fn is_own(&self, host: &str) -> bool {
        let first = host.as_bytes().first();
        let is_v4 = || host.parse::<std::net::Ipv4Addr>().is_ok();
        let is_address = first == Some(&b'[') || first.is_some_and(u8::is_ascii_digit) && is_v4();
        is_address || host == "localhost" || self.own.iter().any(|own| own == host)
    }

    /// The service that a host means by its form; to be asked after the hosts that services have by name.
    ///
    /// # Errors
    /// When it has another form.
    pub fn by_form<'a>(&self, host: &'a str) -> Result<(&'a str, &'a str), Lost> {
        let unknown = || Lost::Host {
            host: shortened(host),
            domain: self.cluster_domain.clone(),
        };
        let (name, rest) = host
            .split_once('.')
            .ok_or_else(|| Lost::Bare(shortened(host)))?;
        let (namespace, rest) = rest.split_once('.').unwrap_or((rest, ""));
        let is_ours = match rest {
            "" | "svc" => true,
            _ => rest.strip_prefix("svc.") == Some(&*self.cluster_domain),
        };
        if is_ours && !name.is_empty() && !namespace.is_empty() {
            Ok((namespace, name))
        } else {
            Err(unknown())
        }
    }
}

fn by_header(header: &[u8]) -> Result<Target<'_>, Lost> {
    let text = std::str::from_utf8(header).ok();
    match text.and_then(|text| text.split_once('/')) {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(Target::Service {
                namespace: namespace.into(),
                name: name.into(),
                prefix: 0,
            })
        }
        _ => Err(Lost::Header(shortened(&String::from_utf8_lossy(header)))),
    }
}

fn by_path(path: &str) -> Result<Target<'_>, Lost> {
    let lost = || Lost::Path(shortened(path));
    let rest = path.strip_prefix('/').ok_or_else(lost)?;
    let (namespace, rest) = rest.split_once('/').ok_or_else(lost)?;
    let name = rest.split('/').next().unwrap_or(rest);
    // Names are DNS labels: whatever is written in another way is none.
    if SERVERS.contains(&namespace)
        || !crate::table::is_label(namespace)
        || !crate::table::is_label(name)
    {
        return Err(lost());
    }
    Ok(Target::Service {
        namespace: namespace.into(),
        name: name.into(),
        prefix: namespace.len() + name.len() + 2,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        Names {
            cluster_domain: "cluster.local".into(),
            own: vec!["router.ortolan-system.svc.cluster.local".into()],
        }
    }

    /// The service by its form, or the sentence.
    fn found(authority: &str, path: &str) -> Result<String, String> {
        let names = names();
        let target = names
            .target(None, Some(authority), path)
            .map_err(|lost| lost.to_string())?;
        match target {
            Target::Service {
                namespace,
                name,
                prefix,
            } => Ok(format!("{namespace}/{name} {}", &path[prefix..])),
            Target::Host(host) => {
                let found = names.by_form(&host).map_err(|lost| lost.to_string())?;
                Ok(format!("{}/{} {path}", found.0, found.1))
            }
        }
    }

    #[test]
    fn a_host_is_read_in_every_form_that_clients_send() {
        for host in [
            "cats.demo",
            "cats.demo.svc",
            "cats.demo.svc.cluster.local",
            "cats.demo.svc.cluster.local.",
            "CATS.Demo.SVC.cluster.LOCAL.:8080",
            "cats.demo:80",
            "cats.demo.",
            "cats.demo.:80",
        ] {
            assert_eq!(found(host, "/v2"), Ok("demo/cats /v2".into()), "{host}");
        }
    }

    #[test]
    fn on_the_routers_own_address_the_path_names_the_service() {
        for host in [
            "10.0.0.7",
            "10.0.0.7:8080",
            "[::1]:8080",
            "[fd00::7]",
            "localhost:80",
            "router.ortolan-system.svc.cluster.local",
        ] {
            let seen = found(host, "/demo/cats/v2/models/m/infer");
            assert_eq!(seen, Ok("demo/cats /v2/models/m/infer".into()), "{host}");
            assert_eq!(found(host, "/demo/cats"), Ok("demo/cats ".into()), "{host}");
        }
    }

    #[test]
    fn what_names_no_service_is_told_what_to_write() {
        for (host, path, words) in [
            ("cats", "/v2", "write cats.NAMESPACE"),
            ("cats.", "/v2", "write cats.NAMESPACE"),
            ("cats:80", "/v2", "write cats.NAMESPACE"),
            (
                "cats.demo.svc.other.domain",
                "/v2",
                "no service has the host cats.demo.svc.other.domain",
            ),
            ("cats.demo.pod", "/v2", "name.namespace.svc.cluster.local"),
            (".demo", "/v2", "no service has the host .demo"),
            ("cats..svc", "/v2", "no service has the host"),
            ("", "/v2", "no Host"),
            (":80", "/v2", "no Host"),
            (
                "localhost",
                "/v2/models/m/infer",
                "/v2/models/m/infer does not",
            ),
            ("localhost", "/", "the path names the service"),
            ("localhost", "/demo", "the path names the service"),
            ("localhost", "/Demo/cats/v2", "the path names the service"),
            ("localhost", "/demo//v2", "the path names the service"),
            ("localhost", "/demo/%63ats/v2", "the path names the service"),
            ("localhost", "*", "the path names the service"),
        ] {
            let sentence = found(host, path).unwrap_err();
            assert!(sentence.contains(words), "{host} {path}: {sentence}");
        }
    }

    #[test]
    fn the_header_of_our_routes_wins_over_the_host() {
        let names = names();
        let target =
            |header: &'static str| names.target(Some(header.as_bytes()), Some("a.b"), "/x");
        assert_eq!(
            target("demo/cats"),
            Ok(Target::Service {
                namespace: "demo".into(),
                name: "cats".into(),
                prefix: 0
            })
        );
        for wrong in ["cats", "", "/cats", "demo/"] {
            assert_eq!(target(wrong), Err(Lost::Header(wrong.into())));
        }
    }

    proptest! {
        #[test]
        fn no_host_and_no_path_makes_it_panic_or_answer_at_length(host in ".{0,300}", path in "/.{0,300}") {
            match found(&host, &path) {
                Ok(_) => {}
                Err(sentence) => prop_assert!(sentence.chars().count() < 600),
            }
        }

        #[test]
        fn a_form_that_is_found_has_exactly_the_name_that_was_written(
            name in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?", namespace in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
            ending in prop::sample::select(vec!["", ".svc", ".svc.cluster.local", ".", ":80", ".svc:443"]),
        ) {
            prop_assume!(format!("{name}.{namespace}").parse::<std::net::Ipv4Addr>().is_err());
            let seen = found(&format!("{name}.{namespace}{ending}"), "/p");
            prop_assert_eq!(seen, Ok(format!("{namespace}/{name} /p")));
        }
    }
}
