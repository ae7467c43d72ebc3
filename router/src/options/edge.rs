//! The command line's part about the edge: TLS, and what one client may ask for.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use clap::Args;

use crate::rate::Network;

/// The edge.
#[derive(Clone, Debug, Args)]
pub struct Edge {
    /// The address for requests over TLS, beside --http: HTTP/1.1, HTTP/2 and gRPC [default: none].
    #[arg(
        long,
        value_name = "ADDR",
        requires = "tls_cert",
        env = "ORTOLAN_HTTPS"
    )]
    pub https: Option<SocketAddr>,

    /// With --https: the certificate in PEM, then those that signed it. Read again when it changes.
    #[arg(
        long,
        value_name = "FILE",
        requires_all = ["tls_key", "https"],
        env = "ORTOLAN_TLS_CERT"
    )]
    pub tls_cert: Option<PathBuf>,

    /// The private key of the certificate, in PEM.
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        env = "ORTOLAN_TLS_KEY"
    )]
    pub tls_key: Option<PathBuf>,

    /// With --https: only let clients in that have a certificate of one of these authorities, in PEM.
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        env = "ORTOLAN_TLS_CLIENT_CA"
    )]
    pub tls_client_ca: Option<PathBuf>,

    /// Requests a second that one client may send, by its address (IPv6: by its /64); more are answered 429 with
    /// Retry-After, gRPC RESOURCE_EXHAUSTED [default: as many as it likes].
    #[arg(long, value_name = "N", env = "ORTOLAN_CLIENT_RATE")]
    pub client_rate: Option<NonZeroU32>,

    /// With --client-rate: requests that a client which was silent may send at once [default: those of a second].
    #[arg(
        long,
        value_name = "N",
        requires = "client_rate",
        env = "ORTOLAN_CLIENT_BURST"
    )]
    pub client_burst: Option<NonZeroU32>,

    /// With --client-rate: proxies in front of the router, as addresses or networks (10.0.0.0/8). What they write into
    /// X-Forwarded-For is believed; nobody else's is.
    #[arg(
        long,
        value_name = "NETWORK",
        value_delimiter = ',',
        requires = "client_rate",
        env = "ORTOLAN_TRUSTED_PROXIES"
    )]
    pub trusted_proxies: Vec<Network>,
}
