//! What the head of a request asks for, beyond its service: the host, the path as its pod sees it, a revision, a
//! session; and what can be answered without a pod.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version, header,
    request::Parts, uri::PathAndQuery,
};
use http_body_util::Full;

use crate::{
    answer::Answer,
    headers,
    live::Live,
    paths::{Meaning, Purpose},
    plan::{Choice, Plan},
    refusal::Refusal,
    split,
    table::{Balancing, RevisionHeader, Session, Settings},
};

/// Chooses a revision, where the service allows it.
pub const REVISION: HeaderName = HeaderName::from_static("x-ortolan-revision");
/// `{live: true}`, `{ready: true}` and `{status: SERVING}`: field 1 is 1, as a message of gRPC.
const YES: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// The host that a request is for: of an absolute URI (HTTP/2 always has one), else of its `Host`.
pub fn authority(parts: &Parts) -> Option<HeaderValue> {
    match parts.uri.authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => parts.headers.get(header::HOST).cloned(),
    }
}

/// Refuses what no pod can be asked.
///
/// # Errors
/// Why not.
pub fn check_protocol(parts: &Parts, is_grpc: bool) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT {
        let message = "CONNECT is not served: send the request itself";
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "protocol",
            message,
        ));
    }
    if is_grpc && parts.version < Version::HTTP_2 {
        let message = "gRPC needs HTTP/2, and this request came over HTTP/1";
        return Err(Refusal::new(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "protocol",
            message,
        ));
    }
    if parts.headers.get_all(header::HOST).iter().nth(1).is_some() {
        let message = "the request has more than one Host";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "host", message));
    }
    Ok(())
}

/// The path without what named the service, with the query; for gRPC with the authority.
pub fn forwarded(uri: &Uri, prefix: usize, authority: Option<&HeaderValue>) -> Uri {
    let whole = uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let path = if prefix == 0 {
        whole
    } else {
        let rest = &whole.as_str()[prefix..];
        let rest = if rest.starts_with('/') {
            rest.to_owned()
        } else {
            format!("/{rest}")
        };
        PathAndQuery::try_from(rest).unwrap_or(whole)
    };
    let mut parts = http::uri::Parts::default();
    if let Some(authority) = authority.and_then(|value| value.as_bytes().try_into().ok()) {
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(authority);
    }
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).unwrap_or_else(|_| Uri::from_static("/"))
}

/// Which revisions may answer: the one that is named in a header, those that hold the version, or all.
///
/// # Errors
/// When there is no such revision or version, or none may be named.
pub fn choice(
    live: &Live,
    plan: &Plan,
    named: Option<&HeaderValue>,
    meaning: &Meaning<'_>,
) -> Result<Choice, Refusal> {
    let unknown = |what: &str, wanted: &str, there: Vec<&str>| {
        let wanted: String = wanted.chars().take(100).collect();
        let there = if there.is_empty() {
            "none".to_owned()
        } else {
            there.join(", ")
        };
        let message = format!("{} has no {what} {wanted}; there is: {there}", live.name);
        Refusal::new(StatusCode::NOT_FOUND, what_word(what), message)
    };
    if let Some(wanted) = named {
        if plan.settings().revision_header == RevisionHeader::Deny {
            let message = format!(
                "{} does not let requests choose a revision: leave x-ortolan-revision out, or allow it with revisionHeader: Allow",
                live.name
            );
            return Err(Refusal::new(StatusCode::FORBIDDEN, "revision", message));
        }
        let wanted = String::from_utf8_lossy(wanted.as_bytes());
        return plan
            .of_revision(&wanted)
            .map_err(|there| unknown("revision", &wanted, there));
    }
    match &meaning.version {
        Some(version) => plan
            .of_version(version)
            .map_err(|there| unknown("version", version, there)),
        None => Ok(Choice::Split),
    }
}

fn what_word(what: &str) -> &'static str {
    if what == "version" {
        "version"
    } else {
        "revision"
    }
}

/// What the router answers by itself while there is no pod: yes, the service is there (it wakes), and nothing that
/// only a pod could know, for which none is woken.
pub fn at_zero(
    live: &Live,
    purpose: Purpose,
    is_grpc: bool,
) -> Option<Result<Response<Answer>, Refusal>> {
    match purpose {
        Purpose::Health if is_grpc => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let mut answer = Response::new(Answer::grpc(Bytes::from_static(YES), trailers));
            let kind = HeaderValue::from_static("application/grpc");
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            Some(Ok(answer))
        }
        Purpose::Health => {
            let body = Bytes::from_static(br#"{"ready":true,"live":true}"#);
            let mut answer = Response::new(Answer::whole(Full::new(body)));
            let json = HeaderValue::from_static("application/json");
            answer.headers_mut().insert(header::CONTENT_TYPE, json);
            Some(Ok(answer))
        }
        Purpose::Metrics => {
            let message = format!(
                "{} has no pod whose metrics could be shown, and none is woken for that",
                live.name
            );
            Some(Err(Refusal::unavailable("metrics", 60, message)))
        }
        Purpose::Work | Purpose::Management => None,
    }
}

/// What chooses where a request goes, beside the weights.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Chooses revision and pod.
    pub session: Option<u64>,
    /// Chooses the pod alone.
    pub pod: Option<u64>,
    /// What the client is to get, so that it is known again.
    pub cookie: Option<HeaderValue>,
}

/// Of a request with these headers.
pub fn keys(settings: &Settings, headers: &HeaderMap) -> Keys {
    let of_header = |name: &String| headers.get(name).map(|value| split::hash(value.as_bytes()));
    let (session, cookie) = match &settings.session {
        None => (None, None),
        Some(Session::Header(name)) => (of_header(name), None),
        Some(Session::Cookie(name)) => match headers::cookie(headers, name) {
            Some(value) => (Some(split::hash(value.as_bytes())), None),
            None => {
                // No secret: it says nothing but which requests belong together.
                let value = format!("{:032x}", fastrand::u128(..));
                let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax");
                (
                    Some(split::hash(value.as_bytes())),
                    HeaderValue::try_from(cookie).ok(),
                )
            }
        },
    };
    let pod = match &settings.balancing {
        Balancing::Consistent { header } => of_header(header),
        Balancing::LeastRequest | Balancing::RoundRobin => None,
    };
    Keys {
        session,
        pod,
        cookie,
    }
}
