//! `spec.routing` as far as the operator is concerned: what cannot take effect is refused, and how long a pod that ends
//! has for what it works on. The routers obey the rest by themselves.

use std::time::Duration;

use ortolan_crds::{InferenceServiceSpec, RevisionHeader, Routing, RoutingProvider, WrongRouting};

use crate::rollout::spec::Splitter;

/// How long one request may take when nothing is said.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Only routers obey it.
    #[error(
        "routing.{0} needs routers, and the platform has none: leave it out, or install the chart with router.enabled=true"
    )]
    NeedsRouters(&'static str),
    /// Gateways do not do it.
    #[error(
        "routing.{0} is the routers' work, and with routing.provider: GatewayAPI requests do not pass them: leave it out, or write provider: Router"
    )]
    NotByGateways(&'static str),
    /// No Gateway is named.
    #[error(
        "routing.provider: GatewayAPI writes weights into routes of Gateways: name them, as in gateway: {{parentRefs: [{{name: public}}]}}, or leave provider out"
    )]
    NoGateway,
    /// A value that an older schema let through.
    #[error(transparent)]
    Wrong(#[from] WrongRouting),
}

/// How long one request may take, if the user said so.
///
/// # Errors
/// [`Invalid`]: fields that need routers where there are none, or where requests do not pass them, and what an older schema let through.
pub fn timeout(
    spec: &InferenceServiceSpec,
    splitter: Splitter,
) -> Result<Option<Duration>, Invalid> {
    let Some(routing) = &spec.routing else {
        return Ok(None);
    };
    match (splitter, needs_routers(routing)) {
        (Splitter::Nobody, Some(field)) => return Err(Invalid::NeedsRouters(field)),
        (Splitter::Gateways, Some(field)) => return Err(Invalid::NotByGateways(field)),
        (Splitter::Gateways, None) if routing.gateway.is_none() => return Err(Invalid::NoGateway),
        _ => {}
    }
    routing.hold_timeout()?;
    routing.retries()?;
    routing.session()?;
    routing.balancing()?;
    Ok(routing.timeout()?)
}

/// The first field that only routers can obey.
fn needs_routers(routing: &Routing) -> Option<&'static str> {
    let fields = [
        ("timeout", routing.timeout.is_some()),
        ("retries", routing.retries.is_some()),
        ("holdTimeout", routing.hold_timeout.is_some()),
        ("balancing", routing.balancing.is_some()),
        ("session", routing.session.is_some()),
        (
            "revisionHeader: Allow",
            routing.revision_header == Some(RevisionHeader::Allow),
        ),
        ("stateful: true", routing.stateful == Some(true)),
        (
            "provider: Router",
            routing.provider == Some(RoutingProvider::Router),
        ),
    ];
    let mut set = fields.into_iter().filter(|(_, is_set)| *is_set);
    set.next().map(|(field, _)| field)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(routing: Value, routers: bool) -> Result<Option<Duration>, Invalid> {
        let spec = json!({"model": {"uri": "https://a/m.onnx"}, "routing": routing});
        let spec = serde_json::from_value(spec).expect("a spec");
        timeout(&spec, Splitter::of(&spec, routers))
    }

    #[test]
    fn without_routers_only_what_changes_nothing_may_be_written() {
        for (routing, field) in [
            (json!({"timeout": "30s"}), "timeout"),
            (json!({"retries": 0}), "retries"),
            (json!({"holdTimeout": "25s"}), "holdTimeout"),
            (json!({"balancing": {"kind": "LeastRequest"}}), "balancing"),
            (json!({"session": {"cookie": "sid"}}), "session"),
            (json!({"revisionHeader": "Allow"}), "revisionHeader: Allow"),
            (json!({"stateful": true}), "stateful: true"),
            (json!({"provider": "Router"}), "provider: Router"),
        ] {
            assert_eq!(
                of(routing.clone(), false),
                Err(Invalid::NeedsRouters(field))
            );
            assert!(of(routing, true).is_ok(), "{field}");
        }
        for routing in [
            json!({}),
            json!({"revisionHeader": "Deny", "stateful": false}),
        ] {
            assert_eq!(of(routing, false), Ok(None));
        }
        assert_eq!(
            Invalid::NeedsRouters("session").to_string(),
            "routing.session needs routers, and the platform has none: leave it out, or install the chart with router.enabled=true"
        );
    }

    #[test]
    fn gateways_need_to_be_named_and_do_none_of_the_routers_work() {
        let with = |key: &str, value: Value| {
            let mut routing =
                json!({"provider": "GatewayAPI", "gateway": {"parentRefs": [{"name": "g"}]}});
            routing[key] = value;
            of(routing, true)
        };
        assert_eq!(with("stateful", json!(false)), Ok(None));
        assert_eq!(with("gateway", Value::Null), Err(Invalid::NoGateway));
        for (field, value) in [
            ("timeout", json!("30s")),
            ("retries", json!(0)),
            ("holdTimeout", json!("1s")),
            ("balancing", json!({"kind": "RoundRobin"})),
            ("session", json!({"cookie": "sid"})),
        ] {
            assert_eq!(with(field, value), Err(Invalid::NotByGateways(field)));
        }
    }

    #[test]
    fn what_an_older_schema_let_through_is_refused_wherever_it_stands() {
        for (routing, says) in [
            (json!({"timeout": "1d"}), "routing.timeout is \"1d\""),
            (
                json!({"holdTimeout": "2h"}),
                "routing.holdTimeout is \"2h\"",
            ),
            (json!({"retries": 11}), "routing.retries is 11"),
            (json!({"session": {}}), "routing.session is empty"),
            (
                json!({"balancing": {"kind": "Consistent"}}),
                "routing.balancing is {kind: Consistent}",
            ),
        ] {
            let refused = of(routing, true).expect_err("refused").to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
