//! What a store's answer, or its silence, means: try again, or end with which reason and sentence.

use std::{error::Error, io, time::Duration};

use http::{HeaderMap, StatusCode, header};
use url::Url;

use crate::{
    failure::{Failure, Reason},
    uri::shown,
};

/// Longer pauses than this are not waited for: the window ends first.
const LONGEST_RETRY_AFTER: u64 = 3600;

/// Why an attempt did not bring the file.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Trying again can help.
    Again {
        /// Part of a sentence.
        cause: String,
        /// The pause that the store asks for.
        after: Option<Duration>,
    },
    /// Trying again cannot help.
    Fatal(Failure),
}

impl Trouble {
    pub(super) fn again(cause: impl Into<String>) -> Self {
        Self::Again {
            cause: cause.into(),
            after: None,
        }
    }

    pub(super) fn fatal(reason: Reason, sentence: String) -> Self {
        Self::Fatal(Failure::new(reason, sentence))
    }
}

/// A status that is not success. `asked` is the URI, `answered` who answered after redirects.
pub(super) fn of_status(
    asked: &Url,
    answered: &Url,
    status: StatusCode,
    credentials: bool,
    headers: &HeaderMap,
) -> Trouble {
    let who = if asked == answered {
        shown(asked)
    } else {
        format!("{}, to which {} redirects,", shown(answered), shown(asked))
    };
    match status.as_u16() {
        404 | 410 => Trouble::fatal(
            Reason::ModelNotFound,
            format!("{who} does not exist: the store answered {status}"),
        ),
        401 | 403 => Trouble::fatal(
            Reason::AccessDenied,
            format!(
                "{who} is not for us: the store answered {status}; {}",
                advice(credentials, asked.origin() == answered.origin(),)
            ),
        ),
        408 | 425 | 429 | 500..=599 => Trouble::Again {
            cause: format!("the store answered {status}"),
            after: retry_after(headers),
        },
        _ => Trouble::fatal(
            Reason::StoreUnavailable,
            format!("{who} cannot be fetched: the store answered {status}, 200 was expected"),
        ),
    }
}

fn advice(credentials: bool, same_origin: bool) -> &'static str {
    match (credentials, same_origin) {
        (true, true) => "the credentials were sent, so they are wrong or lack the right to read",
        (true, false) => "credentials are never sent to another origin on a redirect",
        (false, _) => {
            "no credentials were sent: name a Secret in credentialsSecretRef (--credentials-dir \
             outside a cluster)"
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST_RETRY_AFTER)))
}

/// A request that got no answer.
pub(super) fn of_error(url: &Url, error: &(dyn Error + 'static)) -> Trouble {
    let host = url.host_str().unwrap_or_default();
    let mut innermost = error.to_string();
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return of_tls(host, tls);
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::ConnectionRefused => {
                    let port = url.port_or_known_default().unwrap_or_default();
                    return Trouble::again(format!("{host} refuses connections on port {port}"));
                }
                io::ErrorKind::TimedOut => {
                    return Trouble::again(format!("{host} does not answer in time"));
                }
                _ => {}
            }
        }
        innermost = cause.to_string();
        if innermost.starts_with("dns error") || innermost.contains("failed to lookup address") {
            return Trouble::again(format!("the host {host} does not resolve"));
        }
        // An io::Error passes its inner error's source off as its own and skips the inner one.
        let inner = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = inner.map_or_else(|| cause.source(), |e| Some(e));
    }
    Trouble::again(format!("{host} cannot be reached ({innermost})"))
}

fn of_tls(host: &str, error: &rustls::Error) -> Trouble {
    match error {
        rustls::Error::InvalidCertificate(cause) => Trouble::fatal(
            Reason::StoreUnavailable,
            format!(
                "the certificate of {host} is not trusted ({cause}); put its CA into a file and \
                 name that file in the environment variable SSL_CERT_FILE"
            ),
        ),
        other => Trouble::again(format!("TLS with {host} failed ({other})")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn each_status_has_its_reason_or_is_tried_again() {
        let store = url("http://store/m.onnx?key=s3cret");
        let cases = [
            (404, Some(Reason::ModelNotFound)),
            (410, Some(Reason::ModelNotFound)),
            (401, Some(Reason::AccessDenied)),
            (403, Some(Reason::AccessDenied)),
            (400, Some(Reason::StoreUnavailable)),
            (206, Some(Reason::StoreUnavailable)),
            (500, None),
            (503, None),
            (429, None),
        ];
        for (status, reason) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            let trouble = of_status(&store, &store, status, false, &HeaderMap::new());
            match (trouble, reason) {
                (Trouble::Fatal(failure), Some(reason)) => {
                    assert_eq!(failure.reason, reason, "{status}");
                    assert!(!failure.message.contains("s3cret"), "{failure}");
                }
                (Trouble::Again { cause, .. }, None) => assert!(cause.contains(status.as_str())),
                (other, _) => panic!("{status}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_says_whether_credentials_were_sent() {
        let (a, b) = (url("http://a/m"), url("http://b/m"));
        let said = |credentials, answered: &Url| match of_status(
            &a,
            answered,
            StatusCode::FORBIDDEN,
            credentials,
            &HeaderMap::new(),
        ) {
            Trouble::Fatal(failure) => failure.message,
            again => panic!("{again:?}"),
        };
        assert!(said(false, &a).contains("no credentials were sent"));
        assert!(said(true, &a).contains("wrong or lack"));
        assert!(said(true, &b).contains("never sent to another origin"));
    }
}
