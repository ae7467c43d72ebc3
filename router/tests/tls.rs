//! TLS at the router's edge with real certificates and clients that never retry: both protocols, clients' certificates,
//! and new certificates under load.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use support::{Client, Pod, Router, cats, eventually, refused};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Server};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

type Authority = CertifiedIssuer<'static, KeyPair>;

struct Pair {
    cert: String,
    key: String,
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn signed(authority: &Authority) -> Pair {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["cats.demo".to_owned()]).unwrap();
    let cert = params.signed_by(&key, authority).unwrap();
    Pair {
        cert: cert.pem(),
        key: key.serialize_pem(),
    }
}

/// Files as Kubernetes writes those of a Secret: a new directory, then a link that is swapped.
struct Files(TempDir);

impl Files {
    fn new(pair: &Pair) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(pair);
        files
    }

    fn write(&self, pair: &Pair) {
        let dir = self.0.path();
        let count = std::fs::read_dir(dir).unwrap().count();
        let new = dir.join(format!("..version_{count}"));
        std::fs::create_dir(&new).unwrap();
        std::fs::write(new.join("tls.crt"), &pair.cert).unwrap();
        std::fs::write(new.join("tls.key"), &pair.key).unwrap();
        let link = dir.join("..next");
        std::os::unix::fs::symlink(&new, &link).unwrap();
        std::fs::rename(&link, dir.join("..data")).unwrap();
        for name in ["tls.crt", "tls.key"] {
            let _ = std::os::unix::fs::symlink(format!("..data/{name}"), dir.join(name));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self) -> Vec<String> {
        let [cert, key] = ["tls.crt", "tls.key"].map(|name| self.path(name).display().to_string());
        [
            "--https",
            "127.0.0.1:0",
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

async fn start(pod: SocketAddr, options: &[String]) -> (Router, SocketAddr) {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let router = Router::start(&cats(&[("cats-1", 100, &[pod])], ""), &options);
    let https = router.https().await;
    (router, https)
}

/// A handshake, as a client that trusts `authority` and shows `identity`.
async fn shake(
    https: SocketAddr,
    authority: &Authority,
    identity: Option<&Pair>,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(https).await?;
    let name = ServerName::try_from("cats.demo").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn request() -> Request<Full<Bytes>> {
    let request = Request::post("https://cats.demo/v2/models/m/infer").header("host", "cats.demo");
    request.body(Full::from("{}")).unwrap()
}

/// The pod's name out of its answer.
async fn pod_of(answer: hyper::Response<hyper::body::Incoming>) -> Result<String, String> {
    if answer.status() != 200 {
        return Err(answer.status().to_string());
    }
    let body = answer.into_body().collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    let said: serde_json::Value =
        serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(said["pod"].as_str().unwrap_or_default().to_owned())
}

/// A connection of HTTP/1.1.
async fn one(
    https: SocketAddr,
    authority: &Authority,
    identity: Option<&Pair>,
) -> Result<http1::SendRequest<Full<Bytes>>, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let stream = shake(https, authority, identity, &["http/1.1"])
        .await
        .map_err(|error| said(&error))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| said(&error))?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(sender: &mut http1::SendRequest<Full<Bytes>>) -> Result<String, String> {
    sender.ready().await.map_err(|error| error.to_string())?;
    let mut request = request();
    *request.uri_mut() = "/v2/models/m/infer".parse().unwrap();
    let answer = sender.send_request(request).await;
    pod_of(answer.map_err(|error| error.to_string())?).await
}

/// A request on a connection of its own.
async fn once(
    https: SocketAddr,
    authority: &Authority,
    identity: Option<&Pair>,
) -> Result<String, String> {
    ask(&mut one(https, authority, identity).await?).await
}

fn serial(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn both_protocols_are_served_with_tls_beside_the_port_without() {
    let authority = authority("ours");
    let files = Files::new(&signed(&authority));
    let pod = Pod::start("a").await;
    let (router, https) = start(pod.address, &files.options()).await;
    assert_eq!(once(https, &authority, None).await.as_deref(), Ok("a"));
    assert_eq!(router.get("cats.demo", "/v2").await.pod(), "a");
    let both = shake(https, &authority, None, &["h2", "http/1.1"])
        .await
        .unwrap();
    assert_eq!(both.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(both))
        .await
        .unwrap();
    tokio::spawn(connection);
    for _ in 0..20 {
        let answer = sender.send_request(request()).await.unwrap();
        assert_eq!(answer.version(), Version::HTTP_2);
        assert_eq!(pod_of(answer).await.as_deref(), Ok("a"));
    }
    // Who says nothing of protocols speaks HTTP/1.1.
    let none = shake(https, &authority, None, &[]).await.unwrap();
    assert_eq!(none.get_ref().1.alpn_protocol(), None);
    let (mut sender, connection) = http1::handshake(TokioIo::new(none)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(ask(&mut sender).await.as_deref(), Ok("a"));
    // In clear text nothing is answered there.
    let plain = Client::new(https, "cats.demo").get("/v2").await;
    assert!(plain.is_err(), "{plain:?}");
}

#[tokio::test]
async fn calls_of_grpc_come_through_tls_with_their_trailers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pod = listener.local_addr().unwrap();
    drop(listener);
    let (reporter, health) = tonic_health::server::health_reporter();
    let serving = tonic_health::ServingStatus::Serving;
    reporter.set_service_status("cats", serving).await;
    tokio::spawn(Server::builder().add_service(health).serve(pod));
    eventually("the pod listens", || async {
        TcpStream::connect(pod).await.is_ok()
    })
    .await;
    let authority = authority("ours");
    let files = Files::new(&signed(&authority));
    let (_router, https) = start(pod, &files.options()).await;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .domain_name("cats.demo");
    let endpoint = Endpoint::from_shared(format!("https://{https}"))
        .unwrap()
        .origin("https://cats.demo".parse().unwrap())
        .tls_config(tls)
        .unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let about = |service: &str| HealthCheckRequest {
        service: service.into(),
    };
    let answer = client.check(about("cats")).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
    let status = client.check(about("dogs")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound, "as the pod said it");
}

#[tokio::test]
async fn only_clients_with_a_certificate_are_let_in_where_one_is_asked_for() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let files = Files::new(&signed(&ours));
    let ca = files.path("ca.crt");
    std::fs::write(&ca, ours.pem()).unwrap();
    let mut options = files.options();
    options.extend(["--tls-client-ca".to_owned(), ca.display().to_string()]);
    let pod = Pod::start("a").await;
    let (router, https) = start(pod.address, &options).await;
    let (friend, stranger) = (signed(&ours), signed(&theirs));
    assert_eq!(once(https, &ours, Some(&friend)).await.as_deref(), Ok("a"));
    assert!(once(https, &ours, None).await.is_err());
    assert!(once(https, &ours, Some(&stranger)).await.is_err());
    assert_eq!(pod.hits(), 1);
    // The port in clear text asks for none.
    assert_eq!(router.get("cats.demo", "/v2").await.code, 200);
}

#[tokio::test]
async fn new_certificates_are_taken_under_load_without_a_lost_request_and_broken_ones_never() {
    let authority = Arc::new(authority("ours"));
    let files = Files::new(&signed(&authority));
    let pod = Pod::start("a").await;
    let (router, https) = start(pod.address, &files.options()).await;
    let is_over = Arc::new(AtomicBool::new(false));
    // One connection that stays, and one after the other that does not.
    let (ends, trusted) = (Arc::clone(&is_over), Arc::clone(&authority));
    let stays = tokio::spawn(async move {
        let mut sender = one(https, &trusted, None).await?;
        let mut answered = 0;
        while !ends.load(Ordering::SeqCst) {
            ask(&mut sender).await?;
            answered += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok::<u32, String>(answered)
    });
    let (ends, trusted) = (Arc::clone(&is_over), Arc::clone(&authority));
    let comes = tokio::spawn(async move {
        let mut answered = 0;
        while !ends.load(Ordering::SeqCst) {
            once(https, &trusted, None).await?;
            answered += 1;
        }
        Ok::<u32, String>(answered)
    });
    let seen = || async { serial(&shake(https, &authority, None, &["h2"]).await.unwrap()) };
    let first = seen().await;
    files.write(&Pair {
        cert: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
        key: "nothing".into(),
    });
    eventually("the broken pair is told of", || async {
        router.log().contains("the certificate in use is kept")
    })
    .await;
    assert_eq!(seen().await, first);
    files.write(&signed(&authority));
    eventually("the new pair is taken", || async {
        router.log().contains("new certificate from")
    })
    .await;
    assert_ne!(seen().await, first);
    tokio::time::sleep(Duration::from_millis(300)).await;
    is_over.store(true, Ordering::SeqCst);
    for load in [stays, comes] {
        let answered = load.await.unwrap().unwrap();
        assert!(answered > 20, "{answered}");
    }
}

#[tokio::test]
async fn a_router_that_ends_finishes_what_is_under_way_over_tls() {
    let authority = authority("ours");
    let files = Files::new(&signed(&authority));
    let pod = Pod::start("a").await;
    let (mut router, https) = start(pod.address, &files.options()).await;
    let mut sender = one(https, &authority, None).await.unwrap();
    let slow = Request::get("/v2?sleep=700").header("host", "cats.demo");
    let answer = sender.send_request(slow.body(Full::default()).unwrap());
    let answer = tokio::spawn(answer);
    eventually("the pod has it", || async { pod.hits() == 1 }).await;
    router.signal("TERM");
    assert_eq!(
        pod_of(answer.await.unwrap().unwrap()).await.as_deref(),
        Ok("a")
    );
    assert!(router.ended(Duration::from_secs(10)).await.success());
    assert!(shake(https, &authority, None, &["h2"]).await.is_err());
}

#[test]
fn files_that_cannot_be_used_are_told_by_name_and_half_a_pair_is_refused() {
    let authority = authority("ours");
    let (pair, other) = (signed(&authority), signed(&authority));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let state = file("state.yaml", "services: {}");
    let (cert, key) = (file("tls.crt", &pair.cert), file("tls.key", &pair.key));
    let (wrong_key, empty) = (file("other.key", &other.key), file("empty", ""));
    let https = ["--https", "127.0.0.1:0"];
    for (more, code, sentence) in [
        (
            &["--tls-cert", "/nowhere/tls.crt", "--tls-key", &key][..],
            20,
            "cannot read /nowhere/tls.crt: No such file",
        ),
        (
            &["--tls-cert", &empty, "--tls-key", &key],
            20,
            "empty holds no certificate in PEM",
        ),
        (
            &["--tls-cert", &cert, "--tls-key", &empty],
            20,
            "empty holds no private key in PEM",
        ),
        (
            &["--tls-cert", &cert, "--tls-key", &wrong_key],
            20,
            "do not go together",
        ),
        (
            &[
                "--tls-cert",
                &cert,
                "--tls-key",
                &key,
                "--tls-client-ca",
                &empty,
            ],
            20,
            "empty holds no certificate",
        ),
        (&["--tls-cert", &cert], 2, "--tls-key"),
        (&["--tls-client-ca", &cert], 2, "--tls-cert"),
        (&[], 2, "--tls-cert"),
    ] {
        let options = [&https[..], more].concat();
        let (ended, said) = refused(&["--state", &state], &options);
        assert!(
            ended == code && said.contains(sentence),
            "{more:?}: {ended} {said}"
        );
    }
    let (ended, said) = refused(
        &["--state", &state],
        &["--tls-cert", &cert, "--tls-key", &key],
    );
    assert!(ended == 2 && said.contains("--https"), "{said}");
}
