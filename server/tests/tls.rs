//! TLS with real certificates: both protocols, clients' certificates, new ones without a restart.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use ortolan_server::grpc::proto::{
    ServerReadyRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use support::{Server, onnx};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

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

fn signed(authority: &Authority, name: &str) -> Pair {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let cert = params.signed_by(&key, authority).unwrap();
    Pair {
        cert: cert.pem(),
        key: key.serialize_pem(),
    }
}

struct Files {
    dir: TempDir,
}

impl Files {
    fn new(pair: &Pair) -> Self {
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        files.write(pair);
        files
    }

    /// As Kubernetes writes a Secret: a new directory, then a link that is swapped.
    fn write(&self, pair: &Pair) {
        let dir = self.dir.path();
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
        self.dir.path().join(name)
    }

    fn options(&self) -> Vec<String> {
        let (cert, key) = (self.path("tls.crt"), self.path("tls.key"));
        [
            "--tls-cert",
            cert.to_str().unwrap(),
            "--tls-key",
            key.to_str().unwrap(),
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

async fn start(options: &[String]) -> Server {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Server::start_with_tls(&onnx::identity(onnx::FLOAT, &[-1]), &options).await
}

/// A handshake, as a client that trusts `authority` and shows `identity`.
async fn shake(
    server: &Server,
    authority: &Authority,
    identity: Option<&Pair>,
    alpn: &str,
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
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let address = server.base.strip_prefix("https://").unwrap();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// The code of `GET /healthz/ready`.
async fn get(
    server: &Server,
    authority: &Authority,
    identity: Option<&Pair>,
) -> Result<u16, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let stream = shake(server, authority, identity, "http/1.1")
        .await
        .map_err(|e| said(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| said(&e))?;
    tokio::spawn(connection);
    let request = hyper::Request::get("/healthz/ready")
        .header("host", "localhost")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.map_err(|e| said(&e))?;
    Ok(response.status().as_u16())
}

fn serial(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let (_, session) = stream.get_ref();
    session.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn both_protocols_are_served_with_tls() {
    let authority = authority("ours");
    let files = Files::new(&signed(&authority, "localhost"));
    let server = start(&files.options()).await;
    assert_eq!(get(&server, &authority, None).await, Ok(200));
    for alpn in ["h2", "http/1.1"] {
        let stream = shake(&server, &authority, None, alpn).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
    }
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(server.base.clone())
        .unwrap()
        .tls_config(tls)
        .unwrap();
    let mut client = GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap());
    let ready = client.server_ready(ServerReadyRequest {}).await.unwrap();
    assert!(ready.into_inner().ready);
    // In clear text nothing is answered.
    let plain = reqwest::get(server.base.replace("https:", "http:")).await;
    assert!(plain.is_err());
}

#[tokio::test]
async fn only_clients_with_a_certificate_are_let_in_where_one_is_asked_for() {
    let (authority, strangers) = (authority("ours"), authority("theirs"));
    let files = Files::new(&signed(&authority, "localhost"));
    let ca = files.path("ca.crt");
    std::fs::write(&ca, authority.pem()).unwrap();
    let mut options = files.options();
    options.extend([
        "--tls-client-ca".to_owned(),
        ca.to_str().unwrap().to_owned(),
    ]);
    let server = start(&options).await;
    let (friend, stranger) = (signed(&authority, "client"), signed(&strangers, "client"));
    assert_eq!(get(&server, &authority, Some(&friend)).await, Ok(200));
    assert!(get(&server, &authority, None).await.is_err());
    assert!(get(&server, &authority, Some(&stranger)).await.is_err());
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .identity(Identity::from_pem(&friend.cert, &friend.key))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(server.base.clone())
        .unwrap()
        .tls_config(tls)
        .unwrap();
    let mut client = GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap());
    assert!(client.server_ready(ServerReadyRequest {}).await.is_ok());
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_a_broken_one_never() {
    let authority = authority("ours");
    let files = Files::new(&signed(&authority, "localhost"));
    let server = start(&files.options()).await;
    let first = serial(&shake(&server, &authority, None, "h2").await.unwrap());
    let broken = Pair {
        cert: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
        key: "nothing".into(),
    };
    files.write(&broken);
    wait_for(&server, "the certificate in use is kept").await;
    assert_eq!(
        serial(&shake(&server, &authority, None, "h2").await.unwrap()),
        first
    );
    files.write(&signed(&authority, "localhost"));
    wait_for(&server, "new certificate from").await;
    assert_ne!(
        serial(&shake(&server, &authority, None, "h2").await.unwrap()),
        first
    );
    assert_eq!(get(&server, &authority, None).await, Ok(200));
}

async fn wait_for(server: &Server, words: &str) {
    for _ in 0..400 {
        if server.log().contains(words) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no {words:?} in {}", server.log());
}

#[test]
fn half_a_pair_is_refused_before_anything_is_loaded() {
    let options = ["--tls-cert", "/nowhere/tls.crt"];
    let ended = support::fails(b"no model", &options);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("--tls-key"), "{}", ended.stderr);
    let options = [
        "--tls-cert",
        "/nowhere/tls.crt",
        "--tls-key",
        "/nowhere/tls.key",
    ];
    let ended = support::fails(b"no model", &options);
    assert_eq!(ended.code, 20, "{}", ended.stderr);
    assert!(
        ended.termination_log.contains("/nowhere/tls.crt"),
        "{}",
        ended.termination_log
    );
}
