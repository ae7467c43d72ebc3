//! Who reads the routers' stream: the operator's own client shows a router tokens that a real API server gave, and the
//! router asks that API server, with the rights of every ServiceAccount, for the keys.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Parser as _;
use http::{HeaderValue, header::USER_AGENT};
use k8s_openapi::api::{authentication::v1::TokenRequest, core::v1::ServiceAccount};
use kube::{Client, api::PostParams, config::AuthInfo};
use ortolan_operator::routers::stream::{self, Fault, Source};
use ortolan_router::{
    directory::Directory, hold::Bounds, metrics::Metrics, options::Options, stats::Stats,
    target::Names,
};
use ortolan_stats::AUDIENCE;
use ortolan_tests::{
    World, audit,
    wire::Wire,
    world::{config, world},
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

/// What the API server takes itself.
const API: &str = "https://kubernetes.default.svc";

/// A token of an account of this namespace, as the kubelet asks for one.
async fn token(w: &World, account: &str, audience: &str) -> String {
    let (accounts, params) = (w.api::<ServiceAccount>(), PostParams::default());
    let made: ServiceAccount =
        serde_json::from_value(json!({"metadata": {"name": account}})).expect("an account");
    match accounts.create(&params, &made).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        made => {
            made.expect("an account");
        }
    }
    let wanted =
        json!({"metadata": {}, "spec": {"audiences": [audience], "expirationSeconds": 3600}});
    let wanted: TokenRequest = serde_json::from_value(wanted).expect("a request");
    let given = accounts.create_token_request(account, &params, &wanted);
    given
        .await
        .expect("a token")
        .status
        .expect("a status")
        .token
}

/// A router's stream, with what it may ask the API server through a wire.
struct Router {
    source: Source,
    file: PathBuf,
    _tasks: JoinSet<()>,
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// What the audit log knows a router by.
fn agent(w: &World, name: &str) -> String {
    format!("{name}-of-{}", w.namespace)
}

impl Router {
    async fn start(w: &World, wire: &Wire, name: &str, auth: AuthInfo) -> Self {
        let mut config = config().await;
        config.cluster_url = wire.url();
        config.auth_info = auth;
        let value = HeaderValue::try_from(agent(w, name)).expect("a header");
        config.headers.push((USER_AGENT, value));
        let client = Client::try_from(config).expect("a client");
        let reader = format!("{}/operator", w.namespace);
        let options = [
            "ortolan-router",
            "--kubernetes",
            "--stats",
            "127.0.0.1:0",
            "--stats-reader",
            &reader,
        ];
        let options = Options::try_parse_from(options).expect("options");
        let names = Names {
            cluster_domain: "cluster.local".into(),
            own: Vec::new(),
        };
        let bounds = Bounds {
            requests: 10,
            bytes: 1000,
        };
        let directory = Arc::new(Directory::new(names, bounds, Metrics::default()));
        let stats = Stats::of(&options.stats, Some(client), directory).await;
        let stats = stats.expect("it can be told").expect("it is told");
        let listener = TcpListener::bind(stats.address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = axum::serve(listener, stats.paths()).await;
        });
        let file = std::env::temp_dir().join(format!("{name}-of-{}", w.namespace));
        Self {
            source: Source {
                address,
                token: Some(file.clone()),
            },
            file,
            _tasks: tasks,
        }
    }

    /// What the operator hears that shows this token.
    async fn says_to(&self, token: &str) -> Result<(), Fault> {
        std::fs::write(&self.file, token).expect("a file");
        let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
        tokio::select! {
            fault = stream::read(&self.source, |_, _| told.send(()).expect("the test hears")) => Err(fault),
            Some(()) = hears.recv() => Ok(()),
        }
    }

    async fn refuses(&self, token: &str, code: u16, words: &str) {
        match self.says_to(token).await {
            Err(Fault::Refused(status, said))
                if status.as_u16() == code && said.contains(words) => {}
            other => panic!("{code} {words}: {other:?}"),
        }
    }
}

#[test]
fn a_router_opens_its_stream_to_the_operators_account_only_with_the_rights_that_every_account_has()
{
    world(async |w| {
        let (wire, begin) = (Wire::new().await, audit::mark());
        let own = token(&w, "router", API).await;
        let auth = serde_json::from_value(json!({ "token": own })).expect("who asks");
        let router = Router::start(&w, &wire, "router", auth).await;
        let right = token(&w, "operator", AUDIENCE).await;
        router.says_to(&right).await.expect("it is told");
        router
            .says_to(&format!("{right}\n"))
            .await
            .expect("as a file of lines, too");

        let other = token(&w, "other", AUDIENCE).await;
        router
            .refuses(
                &other,
                401,
                &format!("it is of system:serviceaccount:{}:other", w.namespace),
            )
            .await;
        let beside = w.beside("two").await;
        let same_name = token(&beside, "operator", AUDIENCE).await;
        router
            .refuses(
                &same_name,
                401,
                &format!(
                    "it is of system:serviceaccount:{}:operator",
                    beside.namespace
                ),
            )
            .await;
        let for_the_api = token(&w, "operator", API).await;
        router
            .refuses(&for_the_api, 401, "ask for one for ortolan-router-stats")
            .await;
        let (body, signature) = right.rsplit_once('.').expect("a token");
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let changed = format!("{body}.{first}{}", &signature[1..]);
        router
            .refuses(&changed, 401, "its signature is not right")
            .await;
        router
            .refuses("a secret of an earlier chart", 401, "no signed token")
            .await;

        // A new token, as the kubelet writes one each hour, and no API server.
        let next = token(&w, "operator", AUDIENCE).await;
        wire.cut();
        router.says_to(&next).await.expect("what was read holds");
        let asked = audit::since(begin, &agent(&w, "router"));
        let asked: Vec<_> = asked
            .iter()
            .map(|one| (&*one.verb, &*one.uri, one.code))
            .collect();
        assert_eq!(asked.len(), 2, "once for all tokens: {asked:?}");
        for uri in ["/.well-known/openid-configuration", "/openid/v1/jwks"] {
            assert!(asked.contains(&("get", uri, 200)), "{asked:?}");
        }
    });
}

#[test]
fn a_router_that_cannot_ask_for_the_keys_says_so_and_asks_again() {
    world(async |w| {
        let wire = Wire::new().await;
        // Somebody who has logged in, and is no ServiceAccount.
        let mut auth = config().await.auth_info;
        auth.impersonate = Some(format!("nobody-of-{}", w.namespace));
        let router = Router::start(&w, &wire, "nobody", auth).await;
        let right = token(&w, "operator", AUDIENCE).await;
        let words = "no keys of the API server to check tokens with: its log says why";
        router.refuses(&right, 503, words).await;

        let own = token(&w, "router", API).await;
        let auth = serde_json::from_value(json!({ "token": own })).expect("who asks");
        wire.cut();
        let router = Router::start(&w, &wire, "router", auth).await;
        router.refuses(&right, 503, words).await;
        wire.mend();
        tokio::time::sleep(Duration::from_secs(1)).await;
        w.until("it has asked again", async || {
            router
                .says_to(&right)
                .await
                .map_err(|fault| fault.to_string())
        })
        .await;
    });
}
