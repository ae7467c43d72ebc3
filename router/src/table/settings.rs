//! How the requests of a service are handled.

use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact::required as time;
use serde::{Deserialize, Serialize};

/// How the requests of a service are handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// From the first try to the head of the answer, and between two parts of an answer.
    #[serde(with = "time")]
    pub timeout: Duration,
    /// How often a request is tried again.
    pub retries: u32,
    /// How long a request waits for a pod.
    #[serde(with = "time")]
    pub hold_timeout: Duration,
    /// Which pod of a revision gets a request.
    #[serde(skip_serializing_if = "Balancing::is_default")]
    pub balancing: Balancing,
    /// What ties requests together that one pod should answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Whether requests may choose a revision with `x-ortolan-revision`.
    pub revision_header: RevisionHeader,
    /// A pod remembers earlier requests: nothing that may have reached one is sent again.
    pub stateful: bool,
}

/// Which pod of a revision gets a request. A pod that is full or fails is passed over in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
pub enum Balancing {
    /// The less busy of two that are drawn.
    #[default]
    LeastRequest,
    /// Each in turn.
    RoundRobin,
    /// The same one for the same value of this header; without it as `LeastRequest`.
    Consistent {
        /// The header's name.
        header: String,
    },
}

/// What ties requests together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Session {
    /// The value of this header.
    Header(String),
    /// The value of this cookie, which the router sets where it is missing.
    Cookie(String),
}

/// Whether requests may choose a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevisionHeader {
    /// They may not: such a request is refused.
    #[default]
    Deny,
    /// They may.
    Allow,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            retries: 2,
            hold_timeout: Duration::from_secs(25),
            balancing: Balancing::LeastRequest,
            session: None,
            revision_header: RevisionHeader::Deny,
            stateful: false,
        }
    }
}

impl Balancing {
    fn is_default(&self) -> bool {
        *self == Self::LeastRequest
    }
}

impl Settings {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// A name of a header or a cookie that HTTP does not allow, and which of the two it is.
    pub(super) fn wrong_name(&self) -> Option<(&str, &'static str)> {
        let of_session = match &self.session {
            None => None,
            Some(Session::Header(name)) => Some((&**name, "header")),
            Some(Session::Cookie(name)) => Some((&**name, "cookie")),
        };
        let of_balancing = match &self.balancing {
            Balancing::Consistent { header } => Some((&**header, "header")),
            Balancing::LeastRequest | Balancing::RoundRobin => None,
        };
        // A cookie's name is a token as a header's is.
        let mut names = of_session.into_iter().chain(of_balancing);
        names.find(|(name, _)| http::HeaderName::try_from(*name).is_err())
    }
}
