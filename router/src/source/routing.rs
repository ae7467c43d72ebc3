//! `spec.routing` of an InferenceService, over what the router's options say for all.
//!
//! Input: the field as it stands in the cluster. Output: what it changes, and a sentence for each value that cannot be
//! used. Invariant: a value that an older (or newer) schema let through changes nothing and harms no other field, for
//! the router has to serve in any case; the operator refuses it in the service's status.

use std::time::Duration;

use ortolan_crds::{self as crds, BalancingKind, Routing, SessionKey, WrongRouting};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::table::{Balancing, RevisionHeader, Session, Settings};

/// What a service says of its routing; what it does not say is the router's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    timeout: Option<Duration>,
    retries: Option<u32>,
    hold_timeout: Option<Duration>,
    balancing: Option<Balancing>,
    session: Option<Session>,
    revision_header: Option<RevisionHeader>,
    stateful: Option<bool>,
}

/// What the field changes, and what of it cannot be used.
#[must_use]
pub fn read(written: &Value) -> (Overrides, Vec<String>) {
    let mut wrong = Vec::new();
    if !written.is_object() {
        wrong.push(format!(
            "routing is {written}: write fields under it, such as timeout: 30s"
        ));
    }
    let routing = Routing {
        timeout: field(written, "timeout", &mut wrong),
        retries: field(written, "retries", &mut wrong),
        hold_timeout: field(written, "holdTimeout", &mut wrong),
        balancing: field(written, "balancing", &mut wrong),
        session: field(written, "session", &mut wrong),
        revision_header: field(written, "revisionHeader", &mut wrong),
        stateful: field(written, "stateful", &mut wrong),
        // How requests come to the routers is no business of theirs.
        ..Routing::default()
    };
    let session = used(routing.session(), &mut wrong).map(|key| match key {
        SessionKey::Header(name) => Session::Header(name.to_owned()),
        SessionKey::Cookie(name) => Session::Cookie(name.to_owned()),
    });
    let balancing = used(routing.balancing(), &mut wrong).map(|balancing| match balancing {
        (BalancingKind::RoundRobin, _) => Balancing::RoundRobin,
        (BalancingKind::Consistent, Some(header)) => Balancing::Consistent {
            header: header.to_owned(),
        },
        (BalancingKind::LeastRequest | BalancingKind::Consistent, _) => Balancing::LeastRequest,
    });
    let overrides = Overrides {
        timeout: used(routing.timeout(), &mut wrong),
        retries: used(routing.retries(), &mut wrong),
        hold_timeout: used(routing.hold_timeout(), &mut wrong),
        balancing,
        session,
        revision_header: routing.revision_header.map(|allowed| match allowed {
            crds::RevisionHeader::Deny => RevisionHeader::Deny,
            crds::RevisionHeader::Allow => RevisionHeader::Allow,
        }),
        stateful: routing.stateful,
    };
    (overrides, wrong)
}

fn field<T: DeserializeOwned>(written: &Value, name: &str, wrong: &mut Vec<String>) -> Option<T> {
    let value = written.get(name)?;
    serde_json::from_value(value.clone()).unwrap_or_else(|error| {
        wrong.push(format!("routing.{name} is {value}: {error}"));
        None
    })
}

fn used<T>(read: Result<Option<T>, WrongRouting>, wrong: &mut Vec<String>) -> Option<T> {
    read.unwrap_or_else(|error| {
        wrong.push(error.to_string());
        None
    })
}

impl Overrides {
    /// These settings, changed.
    #[must_use]
    pub fn over(&self, settings: &Settings) -> Settings {
        Settings {
            timeout: self.timeout.unwrap_or(settings.timeout),
            retries: self.retries.unwrap_or(settings.retries),
            hold_timeout: self.hold_timeout.unwrap_or(settings.hold_timeout),
            balancing: self
                .balancing
                .clone()
                .unwrap_or_else(|| settings.balancing.clone()),
            session: self.session.clone().or_else(|| settings.session.clone()),
            revision_header: self.revision_header.unwrap_or(settings.revision_header),
            stateful: self.stateful.unwrap_or(settings.stateful),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_wins_over_the_routers_options_and_the_rest_stays() {
        let options = Settings {
            timeout: Duration::from_secs(7),
            retries: 9,
            ..Settings::default()
        };
        let (overrides, wrong) = read(
            &json!({"timeout": "1m", "holdTimeout": "0s", "stateful": true,
            "balancing": {"kind": "RoundRobin"}, "session": {"cookie": "sid"}, "revisionHeader": "Allow"}),
        );
        assert_eq!(wrong, Vec::<String>::new());
        let expected = Settings {
            timeout: Duration::from_secs(60),
            retries: 9,
            hold_timeout: Duration::ZERO,
            balancing: Balancing::RoundRobin,
            session: Some(Session::Cookie("sid".into())),
            revision_header: RevisionHeader::Allow,
            stateful: true,
        };
        assert_eq!(overrides.over(&options), expected);
        assert_eq!(read(&json!("fast")).1.len(), 1);
        let (none, wrong) = read(&json!({}));
        assert_eq!((none.over(&options), wrong.len()), (options, 0));
        let by_header = json!({"balancing": {"kind": "Consistent", "header": "x-user"}});
        let header = "x-user".into();
        assert_eq!(
            read(&by_header).0.over(&expected).balancing,
            Balancing::Consistent { header }
        );
    }

    #[test]
    fn a_value_that_cannot_be_used_is_told_and_harms_no_other() {
        for (name, value) in [
            ("timeout", json!("1d")),
            ("timeout", json!(30)),
            ("retries", json!(-1)),
            ("retries", json!("two")),
            ("holdTimeout", json!("2h")),
            ("balancing", json!({"kind": "Ring"})),
            ("balancing", json!({"kind": "Consistent"})),
            ("balancing", json!("RoundRobin")),
            ("session", json!({"header": "not a name"})),
            ("session", json!({})),
            ("revisionHeader", json!("Perhaps")),
            ("stateful", json!("yes")),
        ] {
            let mut written = json!({"timeout": "1m", "stateful": true});
            written[name] = value;
            let (overrides, wrong) = read(&written);
            assert_eq!(wrong.len(), 1, "{written}");
            assert!(
                wrong[0].contains(&format!("routing.{name}")),
                "{written}: {}",
                wrong[0]
            );
            let minute = Duration::from_secs(60);
            let expected = Settings {
                timeout: if name == "timeout" {
                    Settings::default().timeout
                } else {
                    minute
                },
                stateful: name != "stateful",
                ..Settings::default()
            };
            assert_eq!(overrides.over(&Settings::default()), expected, "{written}");
        }
    }
}
