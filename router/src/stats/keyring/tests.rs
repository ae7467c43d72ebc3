//! An API server of this process: the two documents, with what is asked of them and how they fail.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex as Lock,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, extract::State as Shared, http::StatusCode, routing::get};
use kube::Config;
use serde_json::json;
use tokio::{net::TcpListener, time};

use super::*;
use crate::stats::token::tests::{Signer, claims, configuration, jwks, reader};

#[derive(Clone)]
struct ApiServer {
    /// What it answers, and with which keys.
    answers: Arc<Lock<(StatusCode, String)>>,
    asked: Arc<AtomicUsize>,
    address: SocketAddr,
}

impl ApiServer {
    async fn start(signers: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            answers: Arc::new(Lock::new((StatusCode::OK, jwks(signers)))),
            asked: Arc::default(),
            address: listener.local_addr().unwrap(),
        };
        let paths = Router::new()
            .route(
                CONFIGURATION,
                get(async |Shared(this): Shared<Self>| {
                    match this.answers.lock().unwrap().clone() {
                        (StatusCode::OK, _) => (StatusCode::OK, configuration()),
                        failure => failure,
                    }
                }),
            )
            .route(
                KEYS,
                get(async |Shared(this): Shared<Self>| {
                    this.asked.fetch_add(1, Ordering::SeqCst);
                    this.answers.lock().unwrap().clone()
                }),
            )
            .with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, paths).await });
        this
    }

    fn answers(&self, signers: &[&Signer]) {
        *self.answers.lock().unwrap() = (StatusCode::OK, jwks(signers));
    }

    fn fails(&self, code: StatusCode) {
        let status =
            json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "message": "no"});
        *self.answers.lock().unwrap() = (code, status.to_string());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn client(&self) -> Client {
        let url = format!("http://{}", self.address).parse().unwrap();
        Client::try_from(Config::new(url)).unwrap()
    }

    fn keyring(&self) -> Keyring {
        Keyring::new(self.client(), reader())
    }
}

async fn pass(by: Duration) {
    time::pause();
    time::advance(by).await;
    time::resume();
}

fn unknown(id: &str) -> Result<(), Refused> {
    Err(Refused::Bad(Bad::UnknownKey(id.to_owned())))
}

#[tokio::test]
async fn a_key_that_is_not_known_is_asked_for_once_in_ten_seconds() {
    let (a, b) = (Signer::new("a"), Signer::new("b"));
    let (by_a, by_b) = (a.token(&claims()), b.token(&claims()));
    let server = ApiServer::start(&[&a]).await;
    let keyring = server.keyring();
    keyring.begin().await;
    for _ in 0..20 {
        assert_eq!(keyring.check(&by_a).await, Ok(()));
        assert_eq!(keyring.check(&by_b).await, unknown("b"));
    }
    assert_eq!(server.asked(), 1, "whatever anybody sends");
    server.answers(&[&a, &b]);
    pass(PAUSE - Duration::from_secs(1)).await;
    assert_eq!(keyring.check(&by_b).await, unknown("b"));
    pass(Duration::from_secs(1)).await;
    assert_eq!(keyring.check(&by_b).await, Ok(()));
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn what_was_read_holds_while_the_api_server_is_away_and_a_withdrawn_key_does_not() {
    let (a, b) = (Signer::new("a"), Signer::new("b"));
    let by_a = a.token(&claims());
    let server = ApiServer::start(&[&a]).await;
    let keyring = server.keyring();
    assert_eq!(keyring.check(&by_a).await, Ok(()));
    server.fails(StatusCode::INTERNAL_SERVER_ERROR);
    for _ in 0..3 {
        pass(OLD + Duration::from_secs(1)).await;
        assert_eq!(keyring.check(&by_a).await, Ok(()));
    }
    assert_eq!(server.asked(), 4, "it was asked each time");
    server.answers(&[&b]);
    pass(PAUSE).await;
    assert_eq!(keyring.check(&by_a).await, unknown("a"));
}

#[tokio::test]
async fn without_keys_nobody_reads_until_the_api_server_tells_them() {
    let a = Signer::new("a");
    let server = ApiServer::start(&[&a]).await;
    server.fails(StatusCode::INTERNAL_SERVER_ERROR);
    let (keyring, token) = (server.keyring(), a.token(&claims()));
    assert_eq!(keyring.check(&token).await, Err(Refused::NoKeys));
    server.answers(&[&a]);
    assert_eq!(keyring.check(&token).await, Err(Refused::NoKeys));
    assert_eq!(server.asked(), 1);
    pass(PAUSE).await;
    assert_eq!(keyring.check(&token).await, Ok(()));
}

#[tokio::test]
async fn the_log_says_what_the_cluster_lacks() {
    let a = Signer::new("a");
    let server = ApiServer::start(&[&a]).await;
    for (code, said) in [
        (
            StatusCode::FORBIDDEN,
            "ClusterRoleBinding system:service-account-issuer-discovery",
        ),
        (
            StatusCode::NOT_FOUND,
            "--service-account-issuer is an https URL",
        ),
        (StatusCode::BAD_GATEWAY, "it answers 502 no"),
    ] {
        server.fails(code);
        let why = fetch(&server.client()).await.unwrap_err();
        assert!(why.contains(said), "{why}");
    }
    server.answers(&[]);
    let why = fetch(&server.client()).await.unwrap_err();
    assert_eq!(why, "it has no key for RS256 or ES256");
}
