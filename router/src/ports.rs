//! The ports for requests: one in clear text and, where there are certificates, one with TLS. Both are taken before
//! anything else is begun, so that a wrong file or an address in use is said at once.

use std::{net::SocketAddr, sync::Arc};

use futures::future::join_all;
use ortolan_tls::{Files, Tls};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    failure::Failure,
    listen::{self, Heads, Port},
    options::{Options, edge::Edge},
    phase::Ending,
    proxy::Proxy,
};

/// Ports that are taken, not served yet.
pub struct Ports {
    http: TcpListener,
    https: Option<(TcpListener, Arc<Tls>)>,
    heads: Heads,
}

/// Takes an address that an option names.
///
/// # Errors
/// When it is taken already, or not ours.
pub async fn bind(address: SocketAddr, option: &'static str) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| Failure::Port {
        address,
        option,
        error,
    })
}

fn certificates(edge: &Edge) -> Result<Option<Arc<Tls>>, Failure> {
    let (Some(cert), Some(key)) = (edge.tls_cert.clone(), edge.tls_key.clone()) else {
        return Ok(None);
    };
    let client_ca = edge.tls_client_ca.clone();
    let files = Files {
        cert,
        key,
        client_ca,
    };
    let tls = Tls::load(files).map_err(|wrong| Failure::Option(wrong.to_string()))?;
    Ok(Some(Arc::new(tls)))
}

impl Ports {
    /// As the options say.
    ///
    /// # Errors
    /// A file or an address that cannot be used.
    pub async fn bind(options: &Options) -> Result<Self, Failure> {
        let tls = certificates(&options.edge)?;
        let http = bind(options.http, "--http").await?;
        let https = match (options.edge.https, tls) {
            (Some(address), Some(tls)) => Some((bind(address, "--https").await?, tls)),
            _ => None,
        };
        let heads = Heads {
            timeout: options.header_timeout,
            bytes: options.max_header_bytes,
            count: options.max_headers,
        };
        Ok(Self { http, https, heads })
    }

    /// Where requests in clear text come in.
    ///
    /// # Errors
    /// What the system says.
    pub fn http(&self) -> std::io::Result<SocketAddr> {
        self.http.local_addr()
    }

    /// Serves until the phase is closed and every connection has ended.
    pub fn serve(self, proxy: Arc<Proxy>, ending: &Arc<Ending>) -> JoinHandle<()> {
        let port = |listener, tls| {
            listen::serve(Port {
                listener,
                proxy: Arc::clone(&proxy),
                heads: self.heads,
                ending: Arc::clone(ending),
                tls,
            })
        };
        let mut ports = vec![port(self.http, None)];
        if let Some((listener, tls)) = self.https {
            if let Ok(address) = listener.local_addr() {
                tracing::info!("listening with TLS on https://{address}");
            }
            ports.push(port(listener, Some(Arc::clone(&tls))));
            tokio::spawn(async move { tls.watch().await });
        }
        tokio::spawn(async move {
            join_all(ports).await;
        })
    }
}
