//! What of a head goes on, and what ends here: headers that belong to one connection (RFC 9110, 7.6.1), and headers that
//! only we may write.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
    },
};

/// Headers with this beginning are ours: what a client sends under such a name is not passed on.
const OURS: &str = "x-ortolan-";
/// Asks a pod to say how long its run took.
pub const ASKS_RUN: HeaderName = HeaderName::from_static("x-ortolan-timing");
/// How long a pod's run took, in microseconds. It ends here.
const RUN: HeaderName = HeaderName::from_static("x-ortolan-run-us");
/// Of one connection, beside those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// No `Connection` may take these away: they say what the message is.
const KEPT: [HeaderName; 4] = [HOST, CONTENT_LENGTH, CONTENT_TYPE, COOKIE];

/// Takes out of a request's head what does not go on to the pod.
pub fn of_request(headers: &mut HeaderMap) {
    let takes_trailers = headers.get(TE).is_some_and(|te| {
        te.as_bytes()
            .windows(8)
            .any(|word| word.eq_ignore_ascii_case(b"trailers"))
    });
    // A body whose length is said twice is the one of the transfer coding; the other number is how smugglers begin.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    of_connection(headers);
    // Answered by us when the body is asked for.
    headers.remove(EXPECT);
    let is_ours = |name: &&HeaderName| name.as_str().starts_with(OURS);
    if headers.keys().any(|name| is_ours(&name)) {
        let ours: Vec<HeaderName> = headers.keys().filter(is_ours).cloned().collect();
        for name in ours {
            headers.remove(name);
        }
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes out of an answer's head what does not go on to the client.
pub fn of_answer(headers: &mut HeaderMap) {
    of_connection(headers);
    headers.remove(RUN);
}

/// How long the pod says that its run took.
#[must_use]
pub fn run(headers: &HeaderMap) -> Option<Duration> {
    let micros = headers.get(RUN)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_micros(micros))
}

fn of_connection(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::try_from(name.trim()).ok())
            .filter(|name| !KEPT.contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether this is a call of gRPC.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let rest = kind.as_bytes().strip_prefix(b"application/grpc");
        // gRPC-Web is another protocol.
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// The protocol that a request of HTTP/1.1 asks to go over to. HTTP/2 is none: its clients begin with it.
#[must_use]
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(UPGRADE)?;
    let connection = headers.get(CONNECTION)?.to_str().ok()?;
    let asks = connection
        .split(',')
        .any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    let is_h2c = wanted.as_bytes().eq_ignore_ascii_case(b"h2c");
    (asks && !is_h2c).then(|| wanted.clone())
}

/// The value of a cookie.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(COOKIE).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let pairs = lines.iter().map(|(name, value)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            )
        });
        let mut headers = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_belongs_to_a_connection_or_to_us_does_not_go_on() {
        let mut request = headers(&[
            ("connection", "close, X-Mine, content-length"),
            ("connection", "upgrade"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("te", "gzip, Trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "AA"),
            ("proxy-authorization", "secret"),
            ("expect", "100-continue"),
            ("x-ortolan-shadow", "1"),
            ("x-ortolan-user", "root"),
            ("x-ortolan-service", "a/b"),
            ("content-length", "3"),
            ("traceparent", "00-1-2-01"),
            ("authorization", "Bearer x"),
        ]);
        of_request(&mut request);
        assert_eq!(
            names(&request),
            ["authorization", "content-length", "te", "traceparent"]
        );
        assert_eq!(request["te"], "trailers");
    }

    #[test]
    fn a_length_beside_a_transfer_coding_is_not_believed() {
        let mut request = headers(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        of_request(&mut request);
        assert!(request.is_empty());
    }

    #[test]
    fn an_answer_loses_what_belongs_to_its_connection() {
        let mut answer = headers(&[
            ("connection", "x-a"),
            ("x-a", "1"),
            ("transfer-encoding", "chunked"),
            ("x-b", "2"),
            ("x-ortolan-run-us", "1500"),
        ]);
        assert_eq!(run(&answer), Some(Duration::from_micros(1500)));
        of_answer(&mut answer);
        assert_eq!(names(&answer), ["x-b"]);
        for said in ["", "-1", "1.5", "fast", "99999999999999999999999"] {
            assert_eq!(run(&headers(&[("x-ortolan-run-us", said)])), None, "{said}");
        }
    }

    #[test]
    fn grpc_upgrades_and_cookies_are_told() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", kind)])), is, "{kind}");
        }
        let asks = |protocol| {
            upgrade(&headers(&[
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", protocol),
            ]))
        };
        assert_eq!(asks("websocket").unwrap(), "websocket");
        assert!(asks("h2c").is_none() && asks("H2C").is_none());
        assert!(upgrade(&headers(&[("upgrade", "websocket")])).is_none());
        let of = headers(&[("cookie", "a=1; who=me"), ("cookie", "b=2")]);
        assert_eq!(
            (cookie(&of, "who"), cookie(&of, "b"), cookie(&of, "c")),
            (Some("me"), Some("2"), None)
        );
    }
}
