//! The ports that the server listens on: taken before anything is loaded, so that an address in use is
//! said at once.

use std::{net::SocketAddr, sync::Arc};

use futures::future::join_all;
use ortolan_model::{Failure, Reason};
use ortolan_tls::{Files, Tls};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    app::App,
    grpc::Grpc,
    http::{
        self,
        dispatch::{Dispatch, Speaks},
        listen::{self, Port},
    },
    options::Options,
};

/// Ports that are taken, not served yet.
pub struct Ports {
    rest: TcpListener,
    grpc: Option<TcpListener>,
    tls: Option<Arc<Tls>>,
}

/// Where the ports are.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// REST, and gRPC by its content type.
    pub http: SocketAddr,
    /// gRPC alone.
    pub grpc: Option<SocketAddr>,
    /// With TLS.
    pub tls: bool,
}

impl Addresses {
    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

impl Ports {
    /// Takes the addresses and reads the certificates.
    pub async fn bind(options: &Options) -> Result<Self, Failure> {
        let tls = certificates(options)?;
        let rest = listen::bind(options.http, "--http").await?;
        let grpc = match options.grpc {
            Some(address) => Some(listen::bind(address, "--grpc").await?),
            None => None,
        };
        Ok(Self { rest, grpc, tls })
    }

    /// Where they are: port 0 asks for any free one.
    pub fn addresses(&self) -> Result<Addresses, Failure> {
        let of = |listener: &TcpListener| {
            listener.local_addr().map_err(|error| {
                Failure::new(Reason::Internal, format!("a port has no address: {error}"))
            })
        };
        Ok(Addresses {
            http: of(&self.rest)?,
            grpc: self.grpc.as_ref().map(of).transpose()?,
            tls: self.tls.is_some(),
        })
    }

    /// Serves until the app is closed and every connection has ended.
    pub fn serve(self, app: &Arc<App>) -> Result<JoinHandle<()>, Failure> {
        let grpc = Grpc::new(app).map_err(|error| {
            Failure::new(Reason::Internal, format!("gRPC cannot be set up: {error}"))
        })?;
        let router = http::router(Arc::clone(app));
        let listeners = [(Some(self.rest), Speaks::Both), (self.grpc, Speaks::Grpc)];
        let mut ports = Vec::new();
        for (listener, speaks) in listeners {
            let Some(listener) = listener else { continue };
            ports.push(listen::serve(Port {
                listener,
                dispatch: Dispatch::new(router.clone(), grpc.clone(), Arc::clone(app), speaks),
                tls: self.tls.clone(),
                phase: app.phase(),
            }));
        }
        let watching = self
            .tls
            .map(|tls| tokio::spawn(async move { tls.watch().await }));
        Ok(tokio::spawn(async move {
            join_all(ports).await;
            if let Some(watching) = watching {
                watching.abort();
            }
        }))
    }
}

fn certificates(options: &Options) -> Result<Option<Arc<Tls>>, Failure> {
    let (cert, key) = match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        _ => return Ok(None),
    };
    let files = Files {
        cert,
        key,
        client_ca: options.tls_client_ca.clone(),
    };
    let tls =
        Tls::load(files).map_err(|wrong| Failure::new(Reason::InvalidConfig, wrong.to_string()))?;
    Ok(Some(Arc::new(tls)))
}
