//! The rules of `spec.routing`.

use serde_json::{Value, json};

use super::{Rule, part, rule};

const HEADER: &str = "write the name of a header: letters, digits, '-' and '_'";

fn routing(routing: Value) -> Value {
    json!({"model": {"uri": "https://a/m.onnx"}, "routing": routing})
}

fn balancing(balancing: Value) -> Value {
    part("routing", "balancing", balancing)
}

fn by_header(name: &str) -> Value {
    balancing(json!({"kind": "Consistent", "header": name}))
}

fn session(key: &str, name: &str) -> Value {
    part("routing", "session", json!({key: name}))
}

fn grace(timeout: &str, grace: &str) -> Value {
    json!({"model": {"uri": "https://a/m.onnx"}, "routing": {"timeout": timeout},
        "pod": {"terminationGracePeriod": grace}})
}

pub fn rules() -> Vec<Rule> {
    let duration = |field: &str, text: &str| part("routing", field, json!(text));
    let mut rules = rules_of_balancing();
    rules.extend([
        rule(
            "spec",
            "a pod that ends needs routing.timeout and 10s more for what it works on: write a longer pod.terminationGracePeriod, or leave it out",
            [grace("30s", "39s"), grace("1m", "45s")],
            [grace("30s", "40s"), grace("5s", "15s"), part("pod", "terminationGracePeriod", json!("15s"))],
        ),
        rule(
            "spec.routing.timeout",
            "write a duration from 1s to 1h, such as 30s or 2m",
            ["", "0s", "30", "1d", "2h", "500ms", "30s1m"].map(|text| duration("timeout", text)),
            ["1s", "30s", "2m", "1h", "59m59s"].map(|text| duration("timeout", text)),
        ),
        rule(
            "spec.routing.retries",
            "write a number from 0 to 10",
            [-1, 11].map(|n| part("routing", "retries", json!(n))),
            [0, 10].map(|n| part("routing", "retries", json!(n))),
        ),
        rule(
            "spec.routing.holdTimeout",
            "write a duration from 0s to 1h, such as 25s",
            ["", "25", "1d", "61m"].map(|text| duration("holdTimeout", text)),
            ["0s", "25s", "1h"].map(|text| duration("holdTimeout", text)),
        ),
        rule(
            "spec.routing.session",
            "write either header or cookie",
            [json!({}), json!({"header": "x-user", "cookie": "sid"})]
                .map(|s| part("routing", "session", s)),
            [session("header", "x-user"), session("cookie", "sid")],
        ),
        rule(
            "spec.routing.session.header",
            HEADER,
            ["", "x user", "x:user", "ü"].map(|name| session("header", name)),
            ["x-user", "X_User2"].map(|name| session("header", name)),
        ),
        rule(
            "spec.routing.session.cookie",
            "write the name of a cookie: letters, digits, '-' and '_'",
            ["", "a=b", "a;b"].map(|name| session("cookie", name)),
            ["sid", "__Host-sid"].map(|name| session("cookie", name)),
        ),
    ]);
    rules
}

fn rules_of_balancing() -> Vec<Rule> {
    vec![
        rule(
            "spec.routing",
            "a session keeps requests at one pod already: write session, or balancing.kind: Consistent, and not both",
            [routing(json!({"session": {"cookie": "sid"},
                "balancing": {"kind": "Consistent", "header": "x-user"}}))],
            [
                routing(json!({"session": {"cookie": "sid"}, "balancing": {"kind": "RoundRobin"}})),
                by_header("x-user"),
            ],
        ),
        rule(
            "spec.routing.balancing",
            "header belongs to kind: Consistent, which needs it: write both, as in {kind: Consistent, header: x-user}, or neither",
            [
                json!({"kind": "Consistent"}),
                json!({"kind": "RoundRobin", "header": "x-user"}),
                json!({"kind": "LeastRequest", "header": "x-user"}),
            ]
            .map(balancing),
            [
                json!({"kind": "LeastRequest"}),
                json!({"kind": "RoundRobin"}),
                json!({"kind": "Consistent", "header": "x-user"}),
            ]
            .map(balancing),
        ),
        rule(
            "spec.routing.balancing.header",
            HEADER,
            ["", "x user", "x:user"].map(by_header),
            ["x-user", "X-User"].map(by_header),
        ),
    ]
}
