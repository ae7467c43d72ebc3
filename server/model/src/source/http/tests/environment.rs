//! What the environment decides, tried in a child process: this test binary again, with one test.

use std::{path::Path, process::Stdio, sync::Arc};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Command,
};
use tokio_rustls::TlsAcceptor;

use super::*;

const URI: &str = "ORTOLAN_TEST_FETCH";

/// Not a test by itself: what the child processes do.
#[tokio::test]
#[ignore = "run by the other tests in a child process"]
async fn child() {
    let url = Url::parse(&std::env::var(URI).unwrap()).unwrap();
    let patience = Patience {
        tries: 2,
        ..quick()
    };
    match fetch_with(&url, None, u64::MAX, patience).await {
        Ok((content, _)) => println!("got {}", String::from_utf8(content).unwrap()),
        Err(failure) => println!("failed {failure}"),
    }
}

async fn in_child(url: &str, environment: &[(&str, &str)]) -> String {
    let out = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "source::http::tests::environment::child",
            "--ignored",
            "--nocapture",
        ])
        .env_clear()
        .env(URI, url)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{text}");
    text
}

/// Serves `onnx` over TLS as `localhost`; writes its certificate to `pem`.
async fn secure_store(pem: &Path) -> String {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(pem, key.cert.pem()).unwrap();
    let chain = vec![CertificateDer::from(key.cert.der().to_vec())];
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(stream).await else {
                continue;
            };
            let _ = tls.read(&mut [0; 2000]).await;
            let _ = tls
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nonnx")
                .await;
            let _ = tls.shutdown().await;
        }
    });
    format!("https://localhost:{port}/m.onnx")
}

#[tokio::test]
async fn a_ca_is_trusted_when_the_platform_holds_it_and_named_when_not() {
    let dir = tempfile::tempdir().unwrap();
    let pem = dir.path().join("ca.pem");
    let url = secure_store(&pem).await;
    let said = in_child(&url, &[("SSL_CERT_FILE", pem.to_str().unwrap())]).await;
    assert!(said.contains("got onnx"), "{said}");
    let none = dir.path().join("none.pem");
    std::fs::write(&none, "").unwrap();
    let said = in_child(&url, &[("SSL_CERT_FILE", none.to_str().unwrap())]).await;
    assert!(
        said.contains("failed StoreUnavailable: the certificate of localhost"),
        "{said}"
    );
    assert!(said.contains("SSL_CERT_FILE"), "{said}");
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_used_except_for_loopback_and_no_proxy() {
    let proxy = Store::start(|_, _| whole(b"by proxy")).await;
    let at = proxy.url.join("/").unwrap();
    let with_user = at.as_str().replace("http://", "http://ann:pw@");
    let said = in_child("http://store.invalid/m.onnx", &[("http_proxy", &with_user)]).await;
    assert!(said.contains("got by proxy"), "{said}");
    let asked = proxy.asked();
    assert_eq!(asked[0].target, "http://store.invalid/m.onnx");
    assert_eq!(
        asked[0].header("proxy-authorization"),
        Some("Basic YW5uOnB3")
    );

    let direct = Store::start(|_, _| whole(b"direct")).await;
    let said = in_child(direct.url.as_str(), &[("http_proxy", at.as_str())]).await;
    assert!(said.contains("got direct"), "{said}");
    let without = [("http_proxy", at.as_str()), ("no_proxy", "store.invalid")];
    let said = in_child("http://store.invalid/m.onnx", &without).await;
    assert!(said.contains("failed StoreUnavailable"), "{said}");
    assert!(
        said.contains("the host store.invalid does not resolve"),
        "{said}"
    );
    assert_eq!(proxy.asked().len(), 1);
}

#[tokio::test]
async fn an_https_store_behind_a_proxy_is_asked_for_with_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let first_line = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 2000];
        let n = stream.read(&mut head).await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
        String::from_utf8_lossy(&head[..n])
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    });
    let said = in_child("https://store.invalid/m.onnx", &[("https_proxy", &proxy)]).await;
    assert_eq!(
        first_line.await.unwrap(),
        "CONNECT store.invalid:443 HTTP/1.1"
    );
    assert!(said.contains("failed StoreUnavailable"), "{said}");
}
