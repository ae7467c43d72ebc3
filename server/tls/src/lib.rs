//! TLS: certificates from files, clients' certificates where they are asked for, and new ones without a
//! restart.
//!
//! Inputs: paths of PEM files. Output: what a connection is accepted with. Invariant: a pair that does not
//! load never takes the place of one that does; connections that are open keep the one that they began
//! with; half a handshake holds a connection no longer than [`HANDSHAKE`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// For a handshake: a few round trips.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// How soon files that changed are read: Kubernetes itself takes up to a minute to change them.
pub const POLL: Duration = Duration::from_secs(3);

/// What is wrong with the files, in a sentence that names them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(String);

/// A connection that does not come about by its client's doing.
#[derive(Debug, thiserror::Error)]
pub enum NoHandshake {
    /// The client broke off, or is not let in.
    #[error("{0}")]
    Failed(#[from] std::io::Error),
    /// It takes too long.
    #[error("no handshake within {HANDSHAKE:?}")]
    Late,
}

/// Where the certificates are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The server's certificate, then those that signed it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Those that sign clients' certificates; none: clients need none.
    pub client_ca: Option<PathBuf>,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// The certificates in use.
pub struct Tls {
    files: Files,
    config: ArcSwap<ServerConfig>,
    first: Contents,
}

impl Tls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// When no port can be served with them.
    pub fn load(files: Files) -> Result<Self, Wrong> {
        let first = read(&files).map_err(Wrong)?;
        let config = build(&files, &first).map_err(Wrong)?;
        Ok(Self {
            files,
            config: ArcSwap::from_pointee(config),
            first,
        })
    }

    /// Takes a connection, with the certificate that is in use now.
    ///
    /// # Errors
    /// When there is no handshake within [`HANDSHAKE`].
    pub async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, NoHandshake> {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(accepted) => Ok(accepted?),
            Err(_) => Err(NoHandshake::Late),
        }
    }

    /// Reads the files again whenever they change, for ever. By their contents, not their times: a Secret's
    /// files are links that are swapped.
    pub async fn watch(&self) {
        let mut seen = self.first.clone();
        let mut complained = false;
        loop {
            tokio::time::sleep(POLL).await;
            let files = self.files.clone();
            let Ok(found) = tokio::task::spawn_blocking(move || read(&files)).await else {
                continue;
            };
            match found {
                Ok(contents) if contents == seen => complained = false,
                Ok(contents) => {
                    complained = false;
                    self.renew(&contents);
                    seen = contents;
                }
                // Files are missing for a moment while they are swapped: once is said, not each time.
                Err(message) if !complained => {
                    complained = true;
                    tracing::warn!("the certificate in use is kept: {message}");
                }
                Err(_) => {}
            }
        }
    }

    fn renew(&self, contents: &Contents) {
        match build(&self.files, contents) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!("new certificate from {}", self.files.cert.display());
            }
            Err(message) => tracing::error!("the certificate in use is kept: {message}"),
        }
    }
}

fn read(files: &Files) -> Result<Contents, String> {
    let file = |path: &Path| {
        std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    Ok(Contents {
        cert: file(&files.cert)?,
        key: file(&files.key)?,
        client_ca: files.client_ca.as_deref().map(file).transpose()?,
    })
}

fn build(files: &Files, contents: &Contents) -> Result<ServerConfig, String> {
    let chain = certificates(&files.cert, &contents.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| {
        format!(
            "{} holds no private key in PEM: {error}",
            files.key.display()
        )
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match (&files.client_ca, &contents.client_ca) {
        (Some(path), Some(pem)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path, pem)? {
                roots.add(certificate).map_err(|error| {
                    format!(
                        "{} holds no certificate that signs: {error}",
                        path.display()
                    )
                })?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let verifier = verifier.map_err(|error| format!("{}: {error}", path.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        format!(
            "the certificate {} and the key {} do not go together: {error}",
            files.cert.display(),
            files.key.display()
        )
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("{} holds no certificate in PEM", path.display())),
        Err(error) => Err(format!("{} is no PEM: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    struct Pair {
        cert: String,
        key: String,
    }

    fn pair(name: &str) -> Pair {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Pair {
            cert: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    fn written(pair: &Pair) -> (TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        let files = Files {
            cert: dir.path().join("tls.crt"),
            key: dir.path().join("tls.key"),
            client_ca: None,
        };
        std::fs::write(&files.cert, &pair.cert).unwrap();
        std::fs::write(&files.key, &pair.key).unwrap();
        (dir, files)
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said_with_their_names() {
        let (one, other) = (pair("one"), pair("other"));
        let garbage = |cert: &str, key: &str| Pair {
            cert: cert.into(),
            key: key.into(),
        };
        for (pair, parts) in [
            (garbage("", &one.key), &["tls.crt", "no certificate"][..]),
            (garbage(&one.cert, ""), &["tls.key", "no private key"]),
            (
                garbage(&one.cert, &other.key),
                &["tls.crt", "tls.key", "do not go together"],
            ),
        ] {
            let (_dir, files) = written(&pair);
            let wrong = Tls::load(files).err().unwrap().to_string();
            for part in parts {
                assert!(wrong.contains(part), "{wrong}");
            }
        }
        let (_dir, mut files) = written(&one);
        files.client_ca = Some("/nowhere/ca.crt".into());
        let wrong = Tls::load(files).err().unwrap().to_string();
        assert!(wrong.contains("/nowhere/ca.crt"), "{wrong}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_pair_is_taken_and_a_broken_one_is_not() {
        let (_dir, files) = written(&pair("one"));
        let tls = Arc::new(Tls::load(files.clone()).unwrap());
        let watcher = tokio::spawn({
            let tls = Arc::clone(&tls);
            async move { tls.watch().await }
        });
        let before = tls.config.load_full();
        std::fs::write(&files.key, "broken").unwrap();
        settle().await;
        assert!(
            Arc::ptr_eq(&before, &tls.config.load_full()),
            "the old pair is kept"
        );
        std::fs::remove_file(&files.key).unwrap();
        settle().await;
        assert!(
            Arc::ptr_eq(&before, &tls.config.load_full()),
            "the old pair is kept"
        );
        let new = pair("two");
        std::fs::write(&files.cert, &new.cert).unwrap();
        std::fs::write(&files.key, &new.key).unwrap();
        settle().await;
        assert!(
            !Arc::ptr_eq(&before, &tls.config.load_full()),
            "the new pair is taken"
        );
        watcher.abort();
    }

    /// Time passes for the watcher; its reads happen on threads of their own.
    async fn settle() {
        for _ in 0..20 {
            tokio::time::sleep(POLL / 4).await;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
