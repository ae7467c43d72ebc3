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
    rules.extend(rules_of_gateway());
    rules.extend(rules_of_provider());
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

fn gateway(more: Value) -> Value {
    let mut gateway = json!({"parentRefs": [{"name": "public"}]});
    gateway
        .as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    part("routing", "gateway", gateway)
}

fn parent(key: &str, value: Value) -> Value {
    let mut parent = json!({"name": "public"});
    parent[key] = value;
    gateway(json!({"parentRefs": [parent]}))
}

/// `provider: GatewayAPI` with this beside it.
fn split(routing: Value, rollout: Value) -> Value {
    let mut spec = gateway(json!({}));
    spec["routing"]["provider"] = json!("GatewayAPI");
    let more = routing.as_object().expect("an object").clone();
    spec["routing"]
        .as_object_mut()
        .expect("an object")
        .extend(more);
    if rollout != Value::Null {
        spec["rollout"] = rollout;
    }
    spec
}

fn rules_of_provider() -> Vec<Rule> {
    let rollout = |rollout: Value| split(json!({}), rollout);
    let step = json!([{"weight": 5, "soak": "1m"}]);
    let shadow = json!({"percent": 5, "compare": {"kind": "Exact"}});
    let by_routers = |rollout: Value| {
        let mut spec = gateway(json!({}));
        spec["rollout"] = rollout;
        spec
    };
    vec![
        rule(
            "spec",
            "steps go on by what the routers count, and with routing.provider: GatewayAPI requests do not pass them: write rollout.weight to set the share by hand, or strategy: BlueGreen, or routing.provider: Router",
            [
                rollout(json!({"steps": step})),
                rollout(json!({"strategy": "Canary"})),
                rollout(json!({"strategy": "Canary", "steps": step})),
            ],
            [
                rollout(json!({})),
                rollout(json!({"weight": 10})),
                rollout(json!({"strategy": "Canary", "weight": 10})),
                rollout(json!({"strategy": "BlueGreen", "approval": "Manual"})),
                rollout(json!({"strategy": "Recreate"})),
                by_routers(json!({"steps": step})),
            ],
        ),
        rule(
            "spec",
            "rollout.shadow copies requests in the routers, and with routing.provider: GatewayAPI requests do not pass them: leave shadow out, or write routing.provider: Router",
            [rollout(json!({"shadow": shadow}))],
            [by_routers(json!({"shadow": shadow}))],
        ),
        rule(
            "spec",
            "rollout.analysis judges by what the routers count, and with routing.provider: GatewayAPI requests do not pass them: leave maxLatency, confidence, maxErrorRateRatio, minRequests and onInconclusive out, or write routing.provider: Router",
            [
                json!({"maxLatency": "250ms"}),
                json!({"confidence": 0.9}),
                json!({"maxErrorRateRatio": 2.0}),
                json!({"minRequests": 5}),
                json!({"onInconclusive": "Abort"}),
            ]
            .map(|analysis| rollout(json!({"analysis": analysis}))),
            [
                rollout(json!({"analysis": {"settle": "20s", "deadline": "5m"}})),
                by_routers(json!({"analysis": {"minRequests": 5}})),
            ],
        ),
        rule(
            "spec.routing",
            "provider: GatewayAPI writes weights into routes of Gateways: name them, as in gateway: {parentRefs: [{name: public}]}, or leave provider out",
            [routing(json!({"provider": "GatewayAPI"}))],
            [
                routing(json!({"provider": "Router"})),
                split(json!({}), Value::Null),
            ],
        ),
        rule(
            "spec.routing",
            "timeout, retries, holdTimeout, balancing, session, revisionHeader and stateful are the routers' work, and with provider: GatewayAPI requests do not pass them: leave these fields out, or write provider: Router",
            [
                json!({"timeout": "30s"}),
                json!({"retries": 1}),
                json!({"holdTimeout": "5s"}),
                json!({"balancing": {"kind": "RoundRobin"}}),
                json!({"session": {"cookie": "sid"}}),
                json!({"revisionHeader": "Allow"}),
                json!({"stateful": true}),
            ]
            .map(|routing| split(routing, Value::Null)),
            [split(
                json!({"revisionHeader": "Deny", "stateful": false}),
                Value::Null,
            )],
        ),
    ]
}

fn rules_of_gateway() -> Vec<Rule> {
    const NO_GRPC: &str = "with a pathPrefix there is no GRPCRoute, which can neither match nor cut off one: leave grpcHostnames out, or pathPrefix";
    let hosts = |key: &str, host: &str| gateway(json!({key: ["a.example.com", host]}));
    let bad = [
        "",
        "A.example.com",
        "a.example.com:80",
        "a..b",
        "*",
        "*.",
        "a.*.b",
        "-a",
        "10.0.0.1",
        "a/b",
    ];
    let good = ["a", "models.example.com", "*.example.com", "a-1.b2"];
    let prefix = |text: &str| gateway(json!({"pathPrefix": text}));
    vec![
        rule(
            "spec.routing.gateway",
            "a GRPCRoute can neither match nor cut off a path prefix, and gRPC's clients cannot send one: leave GRPC out of protocols, or pathPrefix",
            [
                gateway(json!({"pathPrefix": "/a", "protocols": ["HTTP", "GRPC"]})),
                gateway(json!({"pathPrefix": "/a", "protocols": ["GRPC"]})),
            ],
            [
                gateway(json!({"pathPrefix": "/", "protocols": ["HTTP", "GRPC"]})),
                gateway(json!({"pathPrefix": "/a", "protocols": ["HTTP"]})),
                gateway(json!({"pathPrefix": "/a"})),
            ],
        ),
        rule(
            "spec.routing.gateway",
            "grpcHostnames are those of the GRPCRoute: write protocols: [HTTP, GRPC], or leave grpcHostnames out",
            [gateway(
                json!({"protocols": ["HTTP"], "grpcHostnames": ["g.example.com"]}),
            )],
            [
                gateway(json!({"protocols": ["HTTP", "GRPC"], "grpcHostnames": ["g.example.com"]})),
                gateway(json!({"grpcHostnames": ["g.example.com"]})),
            ],
        ),
        rule(
            "spec.routing.gateway",
            NO_GRPC,
            [gateway(
                json!({"pathPrefix": "/a", "grpcHostnames": ["g.example.com"]}),
            )],
            [gateway(
                json!({"pathPrefix": "/", "grpcHostnames": ["g.example.com"]}),
            )],
        ),
        rule(
            "spec.routing.gateway.hostnames",
            "write names of hosts in lower case and without a port, such as models.example.com or *.example.com",
            bad.map(|host| hosts("hostnames", host)),
            good.map(|host| hosts("hostnames", host)),
        ),
        rule(
            "spec.routing.gateway.grpcHostnames",
            "write names of hosts in lower case and without a port, such as grpc.example.com or *.grpc.example.com",
            bad.map(|host| hosts("grpcHostnames", host)),
            good.map(|host| hosts("grpcHostnames", host)),
        ),
        rule(
            "spec.routing.gateway.pathPrefix",
            "write a path such as /models/cats: it begins with '/', does not end with one, and has only letters, digits, '-', '_', '.', '~' and '/' in it",
            [
                "", "a", "/a/", "//a", "/a//b", "/a?b", "/a%2fb", "/a/../b", "/.", "/a b", "/a#b",
            ]
            .map(prefix),
            ["/", "/a", "/models/cats.v1", "/a/..b", "/~x/_y-z"].map(prefix),
        ),
        rule(
            "spec.routing.gateway.parentRefs[].name",
            "write the name of a Gateway",
            ["", "A", "-a", "a/b"].map(|name| parent("name", json!(name))),
            ["public", "a.b-1"].map(|name| parent("name", json!(name))),
        ),
        rule(
            "spec.routing.gateway.parentRefs[].namespace",
            "write the name of a namespace",
            ["", "A", "a.b"].map(|name| parent("namespace", json!(name))),
            ["infra", "a-1"].map(|name| parent("namespace", json!(name))),
        ),
        rule(
            "spec.routing.gateway.parentRefs[].sectionName",
            "write the name of a listener of the Gateway",
            ["", "A", "a/b"].map(|name| parent("sectionName", json!(name))),
            ["http", "https.1"].map(|name| parent("sectionName", json!(name))),
        ),
        rule(
            "spec.routing.gateway.parentRefs[].port",
            "write a port from 1 to 65535",
            [0, -1, 65536].map(|port| parent("port", json!(port))),
            [1, 443, 65535].map(|port| parent("port", json!(port))),
        ),
    ]
}
