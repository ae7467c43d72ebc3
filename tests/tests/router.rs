//! The router's table from a real API server: what it follows, what holds while the API server is away, and that it
//! writes nothing; and where the operator finds the routers.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use http::{HeaderValue, header::USER_AGENT};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Client,
    api::{Patch, PatchParams, PostParams},
};
use ortolan_crds::InferenceService;
use ortolan_router::{
    directory::Directory, hold::Bounds, metrics::Metrics, options::Options,
    source::kubernetes::watch_with, table::ServiceName, target::Names,
};
use ortolan_tests::{
    World, audit,
    operator::Operator,
    routers::{own_address, router_slice},
    tap::Tap,
    wire::Wire,
    world::{config, spec, world},
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    task::JoinSet,
};

/// A router's table, followed through the wire.
struct Follower {
    directory: Arc<Directory>,
    _tasks: JoinSet<()>,
}

/// What the audit log knows this test's routers by.
fn agent(w: &World) -> String {
    format!("router-of-{}", w.namespace)
}

async fn follow(w: &World, wire: &Wire, last: &Path) -> Follower {
    let mut config = config().await;
    config.cluster_url = wire.url();
    let name = HeaderValue::try_from(agent(w)).expect("a header");
    config.headers.push((USER_AGENT, name));
    let client = Client::try_from(config).expect("a client");
    let options = Options::try_parse_from([
        "ortolan-router",
        "--kubernetes",
        "--namespace",
        &w.namespace,
        "--last-state",
        last.to_str().expect("a path"),
    ])
    .expect("options");
    let names = Names {
        cluster_domain: "cluster.local".into(),
        own: Vec::new(),
    };
    let bounds = Bounds {
        requests: 10,
        bytes: 1000,
    };
    let directory = Arc::new(Directory::new(names, bounds, Metrics::default()));
    let mut tasks = JoinSet::new();
    watch_with(client, &options.cluster, Arc::clone(&directory), &mut tasks).expect("it begins");
    Follower {
        directory,
        _tasks: tasks,
    }
}

impl Follower {
    /// The weights and addresses of the service `cats`, by revision.
    fn cats(&self, w: &World) -> BTreeMap<String, (u8, Vec<String>)> {
        let name = ServiceName::new(&w.namespace, "cats").expect("a name");
        let table = self.directory.table().unwrap_or_default();
        let service = table.services.get(&name).cloned().unwrap_or_default();
        let of = |endpoints: &[ortolan_router::table::Endpoint]| {
            let ready = endpoints.iter().filter(|endpoint| endpoint.ready);
            ready.map(|endpoint| endpoint.address.to_string()).collect()
        };
        let one = |revision: &ortolan_router::table::Revision| {
            (
                revision.name.clone(),
                (revision.weight.get(), of(&revision.endpoints)),
            )
        };
        service.revisions.iter().map(one).collect()
    }

    async fn until_cats_are(&self, w: &World, what: &str, expected: &[(&str, u8, &[&str])]) {
        w.until(what, async || {
            let seen = self.cats(w);
            let expected: BTreeMap<String, (u8, Vec<String>)> = expected
                .iter()
                .map(|(name, weight, pods)| {
                    let pods = pods.iter().map(|pod| (*pod).to_owned()).collect();
                    ((*name).to_owned(), (*weight, pods))
                })
                .collect();
            if seen == expected {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
    }
}

async fn set_traffic(w: &World, traffic: &[(&str, i32)]) {
    let traffic: Vec<_> = traffic
        .iter()
        .map(|(revision, weight)| json!({"revision": revision, "weight": weight}))
        .collect();
    let patch = Patch::Merge(json!({"status": {"traffic": traffic}}));
    let patched = w
        .api::<InferenceService>()
        .patch_status("cats", &PatchParams::default(), &patch)
        .await;
    patched.expect("the status is taken");
}

fn slice(name: &str, revision: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false}}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {
            "serving.ortolan.dev/service": "cats", "serving.ortolan.dev/revision": revision,
            "kubernetes.io/service-name": revision}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}],
    }))
    .expect("a slice")
}

#[test]
fn the_router_follows_traffic_and_pods_and_keeps_both_while_the_api_server_is_away() {
    world(async |w| {
        let folder: PathBuf = std::env::temp_dir().join(format!("router-{}", w.namespace));
        std::fs::create_dir_all(&folder).expect("a folder");
        let last = folder.join("last.json");
        let wire = Wire::new().await;
        let begin = audit::mark();
        let router = follow(&w, &wire, &last).await;

        w.create("cats", spec("1")).await;
        set_traffic(&w, &[("cats-1", 90), ("cats-2", 10)]).await;
        let slices = w.api::<EndpointSlice>();
        let made = PostParams::default();
        slices
            .create(&made, &slice("a", "cats-1", &["10.0.0.1", "10.0.0.2"]))
            .await
            .expect("a slice");
        slices
            .create(&made, &slice("b", "cats-2", &["10.0.0.3"]))
            .await
            .expect("a slice");
        let both: &[(&str, u8, &[&str])] = &[
            ("cats-1", 90, &["10.0.0.1:8080", "10.0.0.2:8080"]),
            ("cats-2", 10, &["10.0.0.3:8080"]),
        ];
        router
            .until_cats_are(&w, "traffic and pods are seen", both)
            .await;
        w.until("the last state is on disk", async || {
            let text = std::fs::read_to_string(&last).map_err(|error| error.to_string())?;
            if text.contains("10.0.0.3:8080") {
                Ok(())
            } else {
                Err(text)
            }
        })
        .await;

        // The API server is away: what was seen holds, in this router and in one that starts now.
        wire.cut();
        tokio::time::sleep(Duration::from_secs(3)).await;
        router.until_cats_are(&w, "it holds", both).await;
        let restarted = follow(&w, &wire, &last).await;
        assert!(
            restarted.directory.is_ready(),
            "it begins with what was seen last"
        );
        restarted.until_cats_are(&w, "the last state", both).await;

        // What changed meanwhile is seen when it is back.
        slices
            .delete("b", &kube::api::DeleteParams::default())
            .await
            .expect("deleted");
        set_traffic(&w, &[("cats-1", 100)]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        restarted.until_cats_are(&w, "nobody knows yet", both).await;
        wire.mend();
        let one: &[(&str, u8, &[&str])] = &[("cats-1", 100, &["10.0.0.1:8080", "10.0.0.2:8080"])];
        restarted
            .until_cats_are(&w, "the one that started without it catches up", one)
            .await;
        router
            .until_cats_are(&w, "the one that was there catches up", one)
            .await;

        w.api::<InferenceService>()
            .delete("cats", &kube::api::DeleteParams::default())
            .await
            .expect("deleted");
        router.until_cats_are(&w, "the service is gone", &[]).await;
        let asked = audit::since(begin, &agent(&w));
        assert!(!asked.is_empty(), "the log shows what the router asks");
        assert!(
            asked
                .iter()
                .all(|request| matches!(&*request.verb, "list" | "watch")),
            "{asked:#?}"
        );
        std::fs::remove_dir_all(&folder).expect("the folder goes");
    });
}

#[test]
fn the_operator_that_leads_asks_the_routers_whose_endpoints_the_api_server_has() {
    world(async |w| {
        let address = own_address().await.to_string();
        let listener = TcpListener::bind((&*address, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let token = std::env::temp_dir().join(format!("token-{}", w.namespace));
        std::fs::write(&token, "the token").expect("a file");
        let slices = w.api::<EndpointSlice>();
        let made = PostParams::default();
        let other = router_slice("other", "other", &address);
        slices.create(&made, &other).await.expect("a slice");
        let options = [
            format!("--router=routers.{}.svc.cluster.local", w.namespace),
            format!("--router-stats-port={port}"),
            format!("--router-stats-token-file={}", token.display()),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let operator = Operator::with(&w, &options, Tap::default());
        let early = tokio::time::timeout(Duration::from_secs(3), listener.accept()).await;
        assert!(early.is_err(), "the endpoints of another Service");

        let ours = router_slice("ours", "routers", &address);
        slices.create(&made, &ours).await.expect("a slice");
        let asks = tokio::time::timeout(ortolan_tests::world::PATIENCE, listener.accept());
        let (mut stream, _) = asks.await.expect("in time").expect("a connection");
        let mut lines = BufReader::new(&mut stream).lines();
        let mut head = Vec::new();
        while let Some(line) = lines.next_line().await.expect("a head") {
            if line.is_empty() {
                break;
            }
            head.push(line.to_lowercase());
        }
        assert_eq!(head[0], "get /stats http/1.1");
        assert!(
            head.contains(&"authorization: bearer the token".to_owned()),
            "{head:?}"
        );
        std::fs::remove_file(&token).expect("the file goes");
        operator.stop().await;
    });
}
