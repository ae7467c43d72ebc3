//! Where the load goes: one address, told by the user's URL, looked up once.

use std::net::SocketAddr;

use url::Url;

use crate::tool::Refusal;

/// A server's address and the beginning of its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Everything is sent here.
    pub address: SocketAddr,
    /// As the Host header says it.
    pub host: String,
    /// Before every path; empty, or `/something` without a slash at its end.
    pub prefix: String,
}

/// The host, port and prefix of a URL; pure.
fn parse(text: &str) -> Result<(String, u16, String, String), String> {
    let wrong = |why: &str| format!("{text:?} {why}; write http://HOST:PORT");
    let url = Url::parse(text).map_err(|error| wrong(&format!("is no URL ({error})")))?;
    match url.scheme() {
        "http" => {}
        "https" => return Err(wrong("asks for TLS, which bench does not speak")),
        _ => return Err(wrong("is no http URL")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("carries credentials: give them with --header"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(
            "has a query or a fragment: paths are told with --path",
        ));
    }
    let host = url.host_str().ok_or_else(|| wrong("names no host"))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let shown = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let prefix = url.path().trim_end_matches('/').to_owned();
    Ok((
        host.trim_matches(['[', ']']).to_owned(),
        port,
        shown,
        prefix,
    ))
}

/// Looks the URL's host up.
pub async fn resolve(text: &str) -> Result<Base, Refusal> {
    let (host, port, shown, prefix) = parse(text).map_err(Refusal::Data)?;
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let mut addresses = found
        .map_err(|error| Refusal::Target(format!("the host {host} does not resolve: {error}")))?
        .peekable();
    let first = addresses.peek().copied();
    // A name may stand for several addresses of which only some are served.
    for address in addresses {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(Base {
                address,
                host: shown,
                prefix,
            });
        }
    }
    Err(Refusal::Target(match first {
        Some(address) => format!("nothing answers at {address} ({text})"),
        None => format!("the host {host} has no address"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let table = [
            (
                "http://127.0.0.1:8080",
                ("127.0.0.1", 8080, "127.0.0.1:8080", ""),
            ),
            ("http://a.b/", ("a.b", 80, "a.b", "")),
            ("http://[::1]:9/x/y/", ("::1", 9, "[::1]:9", "/x/y")),
        ];
        for (url, (host, port, shown, prefix)) in table {
            assert_eq!(
                parse(url),
                Ok((host.into(), port, shown.into(), prefix.into())),
                "{url}"
            );
        }
    }

    #[test]
    fn what_cannot_be_loaded_is_refused_with_a_sentence() {
        for (url, words) in [
            ("127.0.0.1:8080", "no"),
            ("localhost", "no URL"),
            ("https://a", "TLS"),
            ("ftp://a", "no http URL"),
            ("http://u:p@a", "--header"),
            ("http://a/?x", "--path"),
        ] {
            let sentence = parse(url).unwrap_err();
            assert!(
                sentence.contains(words) && sentence.contains("http://HOST:PORT"),
                "{sentence}"
            );
        }
    }
}
