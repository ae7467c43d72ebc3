//! `spec.routing`: how requests reach the pods. A change restarts nothing; the routers follow it at once.
//!
//! What a field may be stands here twice: as rules of the schema, and in [`Routing`]'s methods for values that an
//! older schema let through, which the operator refuses and the routers replace by their own.

use std::time::Duration;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::gateway::{Gateway, RoutingProvider};

/// The rule of a name of a header or a cookie.
const TOKEN: &str = "self.matches('^[A-Za-z0-9_-]+$')";

/// How requests reach the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.session) || !has(self.balancing) || self.balancing.kind != 'Consistent'")
        .message("a session keeps requests at one pod already: write session, or balancing.kind: Consistent, and not both"),
    validation = Rule::new("!has(self.provider) || self.provider != 'GatewayAPI' || has(self.gateway)")
        .message("provider: GatewayAPI writes weights into routes of Gateways: name them, as in gateway: {parentRefs: [{name: public}]}, or leave provider out"),
    validation = Rule::new("!has(self.provider) || self.provider != 'GatewayAPI' || (!has(self.timeout) && !has(self.retries) && !has(self.holdTimeout) && !has(self.balancing) && !has(self.session) && (!has(self.revisionHeader) || self.revisionHeader == 'Deny') && (!has(self.stateful) || !self.stateful))")
        .message("timeout, retries, holdTimeout, balancing, session, revisionHeader and stateful are the routers' work, and with provider: GatewayAPI requests do not pass them: leave these fields out, or write provider: Router"),
)]
pub struct Routing {
    /// How long a request may take: from the first try to the head of the answer, and between two parts of an answer
    /// (not for gRPC). 30s when absent (`--timeout` of the routers). A pod that ends has this time for what it works on: its
    /// termination grace period follows from it unless `pod.terminationGracePeriod` is written. That is worked out when a
    /// revision is made: a change of this field makes no revision and restarts nothing, so that pods of a revision that
    /// is there keep theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && self != '' && duration(self) >= duration('1s') && duration(self) <= duration('1h')")
            .message("write a duration from 1s to 1h, such as 30s or 2m"),
    )]
    pub timeout: Option<String>,
    /// How often a request is sent again where that is safe; 2 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 0 && self <= 10")
            .message("write a number from 0 to 10"),
    )]
    pub retries: Option<i32>,
    /// How long a request waits for a pod while there is none, or all are full; 25s when absent. `0s`: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && self != '' && duration(self) <= duration('1h')")
            .message("write a duration from 0s to 1h, such as 25s"),
    )]
    pub hold_timeout: Option<String>,
    /// Which pod of a revision gets a request; the less busy of two when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balancing: Option<Balancing>,
    /// Keeps requests that belong together at one revision and one of its pods, as long as that pod is there and has room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Whether requests may choose a revision with the header `x-ortolan-revision`. `Deny` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision_header: Option<RevisionHeader>,
    /// `true`: a pod remembers earlier requests, so that nothing that may have reached one is sent again. `false` when
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stateful: Option<bool>,
    /// Lets requests in from outside the cluster, through Gateways of the Gateway API: the operator makes an HTTPRoute
    /// named as this object, and a GRPCRoute with `-grpc` after the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
    /// Who sends requests that came through `gateway` to the revisions: `Router` or `GatewayAPI`. `Router` when absent;
    /// on a platform without routers the routes point at this object's Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<RoutingProvider>,
}

/// Which pod of a revision gets a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.header) == (self.kind == 'Consistent')")
        .message("header belongs to kind: Consistent, which needs it: write both, as in {kind: Consistent, header: x-user}, or neither"),
)]
pub struct Balancing {
    /// `LeastRequest`, `RoundRobin` or `Consistent`.
    pub kind: BalancingKind,
    /// `Consistent`: requests with the same value of this header go to the same pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    #[x_kube(
        validation = Rule::new(TOKEN)
            .message("write the name of a header: letters, digits, '-' and '_'"),
    )]
    pub header: Option<String>,
}

/// How a pod is chosen. Always: a pod that is full (`server.maxConcurrency`) or fails is passed over.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum BalancingKind {
    /// The less busy of two that are drawn; a new pod is spared for a while.
    #[default]
    LeastRequest,
    /// Each in turn, for each router.
    RoundRobin,
    /// By a header's value, the same on every router; a pod that goes moves only its own requests. Without the header as
    /// `LeastRequest`.
    Consistent,
}

/// What tells that requests belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.header) != has(self.cookie)")
        .message("write either header or cookie"),
)]
pub struct Session {
    /// The value of this header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    #[x_kube(
        validation = Rule::new(TOKEN)
            .message("write the name of a header: letters, digits, '-' and '_'"),
    )]
    pub header: Option<String>,
    /// The value of this cookie, which the router sets where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    #[x_kube(
        validation = Rule::new(TOKEN)
            .message("write the name of a cookie: letters, digits, '-' and '_'"),
    )]
    pub cookie: Option<String>,
}

/// Whether requests may choose a revision.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum RevisionHeader {
    /// They may not: such a request is refused.
    #[default]
    Deny,
    /// They may.
    Allow,
}

/// A value that an older schema let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongRouting {
    /// Where it stands under `spec`.
    pub field: &'static str,
    /// What stands there.
    pub value: String,
    /// What to write instead.
    pub write: &'static str,
}

impl std::fmt::Display for WrongRouting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            field,
            value,
            write,
        } = self;
        write!(f, "{field} is {value}: write {write}")
    }
}

impl std::error::Error for WrongRouting {}

const NAME: &str = "a name of letters, digits, '-' and '_'";
const HOUR: Duration = Duration::from_secs(3600);

fn span(
    field: &'static str,
    text: Option<&String>,
    least: Duration,
    write: &'static str,
) -> Result<Option<Duration>, WrongRouting> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || WrongRouting {
        field,
        value: format!("{text:?}"),
        write,
    };
    let span = crate::parse_duration(text).ok_or_else(wrong)?;
    if (least..=HOUR).contains(&span) {
        Ok(Some(span))
    } else {
        Err(wrong())
    }
}

fn name<'a>(field: &'static str, text: &'a str) -> Result<&'a str, WrongRouting> {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=100).contains(&text.len()) && text.bytes().all(inside) {
        return Ok(text);
    }
    Err(WrongRouting {
        field,
        value: format!("{text:?}"),
        write: NAME,
    })
}

/// What ties requests together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKey<'a> {
    /// This header's value.
    Header(&'a str),
    /// This cookie's value.
    Cookie(&'a str),
}

impl Routing {
    /// Whether the Gateways split the traffic.
    #[must_use]
    pub fn is_split_by_gateways(&self) -> bool {
        self.provider == Some(RoutingProvider::GatewayAPI)
    }

    /// How long a request may take.
    ///
    /// # Errors
    /// What an older schema let through.
    pub fn timeout(&self) -> Result<Option<Duration>, WrongRouting> {
        let text = self.timeout.as_ref();
        let write = "a duration from 1s to 1h, such as 30s or 2m";
        span("routing.timeout", text, Duration::from_secs(1), write)
    }

    /// How long a request waits for a pod.
    ///
    /// # Errors
    /// What an older schema let through.
    pub fn hold_timeout(&self) -> Result<Option<Duration>, WrongRouting> {
        let text = self.hold_timeout.as_ref();
        let write = "a duration from 0s to 1h, such as 25s";
        span("routing.holdTimeout", text, Duration::ZERO, write)
    }

    /// How often a request is sent again.
    ///
    /// # Errors
    /// What an older schema let through.
    pub fn retries(&self) -> Result<Option<u32>, WrongRouting> {
        let wrong = |n: i32| WrongRouting {
            field: "routing.retries",
            value: n.to_string(),
            write: "a number from 0 to 10",
        };
        let read = |n| u32::try_from(n).ok().filter(|n| *n <= 10).ok_or(wrong(n));
        self.retries.map(read).transpose()
    }

    /// What ties requests together.
    ///
    /// # Errors
    /// What an older schema let through.
    pub fn session(&self) -> Result<Option<SessionKey<'_>>, WrongRouting> {
        let Some(session) = &self.session else {
            return Ok(None);
        };
        match (&session.header, &session.cookie) {
            (Some(header), None) => {
                name("routing.session.header", header).map(|name| Some(SessionKey::Header(name)))
            }
            (None, Some(cookie)) => {
                name("routing.session.cookie", cookie).map(|name| Some(SessionKey::Cookie(name)))
            }
            (has_header, _) => Err(WrongRouting {
                field: "routing.session",
                value: match has_header {
                    Some(_) => "a header and a cookie".into(),
                    None => "empty".into(),
                },
                write: "either header or cookie",
            }),
        }
    }

    /// How a pod is chosen, and by which header.
    ///
    /// # Errors
    /// What an older schema let through.
    pub fn balancing(&self) -> Result<Option<(BalancingKind, Option<&str>)>, WrongRouting> {
        let Some(balancing) = &self.balancing else {
            return Ok(None);
        };
        let header = balancing.header.as_deref();
        let header = header
            .map(|header| name("routing.balancing.header", header))
            .transpose()?;
        let wrong = |value: &str, write| WrongRouting {
            field: "routing.balancing",
            value: value.into(),
            write,
        };
        match (balancing.kind, header) {
            (BalancingKind::Consistent, None) => Err(wrong(
                "{kind: Consistent}",
                "a header beside it, as in {kind: Consistent, header: x-user}",
            )),
            (BalancingKind::Consistent, _) if self.session.is_some() => Err(wrong(
                "{kind: Consistent}, and there is a session",
                "one of the two: a session keeps requests at one pod already",
            )),
            (BalancingKind::LeastRequest | BalancingKind::RoundRobin, Some(_)) => Err(wrong(
                "a header without kind: Consistent",
                "{kind: Consistent, header: x-user}, or leave the header out",
            )),
            (kind, header) => Ok(Some((kind, header))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The first thing that is wrong.
    fn judged(routing: Value) -> Result<(), String> {
        let routing: Routing = serde_json::from_value(routing).expect("a routing");
        let all = [
            routing.timeout().err(),
            routing.hold_timeout().err(),
            routing.retries().err(),
            routing.session().err(),
            routing.balancing().err(),
        ];
        let first = all.into_iter().flatten().next();
        first.map_or(Ok(()), |wrong| Err(wrong.to_string()))
    }

    #[test]
    fn what_the_schema_lets_through_can_be_read() {
        let all = json!({"timeout": "2m", "retries": 0, "holdTimeout": "0s", "balancing": {"kind": "RoundRobin"},
            "session": {"cookie": "sid"}, "revisionHeader": "Allow", "stateful": true});
        let routing: Routing = serde_json::from_value(all).expect("a routing");
        assert_eq!(routing.timeout(), Ok(Some(Duration::from_secs(120))));
        assert_eq!(routing.hold_timeout(), Ok(Some(Duration::ZERO)));
        assert_eq!(routing.retries(), Ok(Some(0)));
        assert_eq!(routing.session(), Ok(Some(SessionKey::Cookie("sid"))));
        assert_eq!(
            routing.balancing(),
            Ok(Some((BalancingKind::RoundRobin, None)))
        );
        assert_eq!(judged(json!({})), Ok(()));
        let consistent = json!({"balancing": {"kind": "Consistent", "header": "x-user"}});
        assert_eq!(judged(consistent), Ok(()));
    }

    #[test]
    fn what_an_older_schema_let_through_says_what_to_write() {
        for (routing, sentence) in [
            (
                json!({"timeout": "1d"}),
                "routing.timeout is \"1d\": write a duration from 1s",
            ),
            (json!({"timeout": "0s"}), "a duration from 1s to 1h"),
            (json!({"timeout": "2h"}), "a duration from 1s to 1h"),
            (json!({"holdTimeout": ""}), "routing.holdTimeout is \"\""),
            (
                json!({"retries": 11}),
                "routing.retries is 11: write a number from 0 to 10",
            ),
            (json!({"retries": -1}), "routing.retries is -1"),
            (
                json!({"session": {}}),
                "routing.session is empty: write either header or cookie",
            ),
            (
                json!({"session": {"header": "a", "cookie": "b"}}),
                "a header and a cookie: write either",
            ),
            (
                json!({"session": {"header": "a b"}}),
                "routing.session.header is \"a b\": write a name",
            ),
            (
                json!({"session": {"cookie": ""}}),
                "routing.session.cookie is \"\"",
            ),
            (
                json!({"balancing": {"kind": "Consistent"}}),
                "write a header beside it",
            ),
            (
                json!({"balancing": {"kind": "RoundRobin", "header": "a"}}),
                "or leave the header out",
            ),
            (
                json!({"balancing": {"kind": "Consistent", "header": "a"}, "session": {"cookie": "b"}}),
                "write one of the two",
            ),
        ] {
            let said = judged(routing.clone()).expect_err("wrong");
            assert!(said.contains(sentence), "{routing}: {said}");
        }
    }
}
