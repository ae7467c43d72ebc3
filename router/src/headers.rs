//! What of a head goes on, and what ends here: headers that belong to one connection (RFC 9110, 7.6.1), and headers that
//! only we may write.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING,
        UPGRADE,
    },
};

/// Headers with this beginning are ours: what a client sends under such a name is not passed on.
const OURS: &str = "x-ortolan-";
/// A call's code, in a head or behind a body.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Asks a pod to say how long its run took.
pub const ASKS_RUN: HeaderName = HeaderName::from_static("x-ortolan-timing");
/// How long a pod's run took, in microseconds. It ends here.
const RUN: HeaderName = HeaderName::from_static("x-ortolan-run-us");
/// No `Connection` may take these away: they say what the message is.
const KEPT: [HeaderName; 4] = [HOST, CONTENT_LENGTH, CONTENT_TYPE, COOKIE];

/// What of a head ends here, by one look at it: heads have little of it, and a search for each name that there could be
/// costs more than all else that is done with a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// `Connection`, which may name others.
    connection: bool,
    /// Others that belong to one connection.
    hop: bool,
    /// Some whose names begin as ours do.
    ours: bool,
    expect: bool,
    upgrade: bool,
}

impl Ends {
    /// Of this head.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut ends = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "connection" => ends.connection = true,
                "expect" => ends.expect = true,
                "upgrade" => (ends.hop, ends.upgrade) = (true, true),
                name if is_hop_by_hop(name) => ends.hop = true,
                name => ends.ours |= name.starts_with(OURS),
            }
        }
        ends
    }

    /// Whether a client wrote headers under names that are ours: some of them mean something before they end here.
    #[must_use]
    pub const fn has_ours(self) -> bool {
        self.ours
    }
}

/// Of one connection, beside `Connection` and those that it names.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "te" | "upgrade"
            | "keep-alive"
            | "http2-settings"
            | "proxy-connection"
            | "transfer-encoding"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}

/// Takes out of a request's head what does not go on to the pod.
pub fn of_request(headers: &mut HeaderMap, ends: Ends) {
    let takes_trailers = ends.hop
        && headers.get(TE).is_some_and(|te| {
            te.as_bytes()
                .windows(8)
                .any(|word| word.eq_ignore_ascii_case(b"trailers"))
        });
    // A body whose length is said twice is the one of the transfer coding; the other number is how smugglers begin.
    if ends.hop && headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    of_connection(headers, ends);
    if ends.expect {
        // Answered by us when the body is asked for.
        headers.remove(EXPECT);
    }
    if ends.ours {
        remove(headers, |name| name.starts_with(OURS));
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes out of an answer's head what does not go on to the client.
pub fn of_answer(headers: &mut HeaderMap) {
    let ends = Ends::of(headers);
    of_connection(headers, ends);
    if ends.ours {
        headers.remove(RUN);
    }
}

/// How long the pod says that its run took.
#[must_use]
pub fn run(headers: &HeaderMap) -> Option<Duration> {
    let micros = headers.get(RUN)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_micros(micros))
}

fn of_connection(headers: &mut HeaderMap, ends: Ends) {
    if ends.connection {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            // What it mostly says, and what is taken away below.
            .filter(|name| !name.eq_ignore_ascii_case("keep-alive"))
            .filter_map(|name| HeaderName::try_from(name).ok())
            .filter(|name| !KEPT.contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    if ends.hop {
        remove(headers, is_hop_by_hop);
    }
}

fn remove(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    let meant = headers.keys().filter(|name| is_meant(name.as_str()));
    let meant: Vec<HeaderName> = meant.cloned().collect();
    for name in meant {
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
pub fn upgrade(headers: &HeaderMap, ends: Ends) -> Option<HeaderValue> {
    if !ends.upgrade {
        return None;
    }
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
        let ends = Ends::of(&request);
        of_request(&mut request, ends);
        assert_eq!(
            names(&request),
            ["authorization", "content-length", "te", "traceparent"]
        );
        assert_eq!(request["te"], "trailers");
    }

    #[test]
    fn a_length_beside_a_transfer_coding_is_not_believed() {
        let mut request = headers(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        let ends = Ends::of(&request);
        of_request(&mut request, ends);
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
        let of = |lines: &[(&str, &str)]| {
            let headers = headers(lines);
            upgrade(&headers, Ends::of(&headers))
        };
        let asks = |protocol| of(&[("connection", "keep-alive, Upgrade"), ("upgrade", protocol)]);
        assert_eq!(asks("websocket").unwrap(), "websocket");
        assert!(asks("h2c").is_none() && asks("H2C").is_none());
        assert!(of(&[("upgrade", "websocket")]).is_none());
        let of = headers(&[("cookie", "a=1; who=me"), ("cookie", "b=2")]);
        assert_eq!(
            (cookie(&of, "who"), cookie(&of, "b"), cookie(&of, "c")),
            (Some("me"), Some("2"), None)
        );
    }
}
