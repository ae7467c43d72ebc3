//! Why the router cannot begin, and the exit code for it: the same numbers as the server's for the same causes.

use std::{net::SocketAddr, path::PathBuf};

/// Why the router cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An address is taken or not ours.
    #[error("PortInUse: cannot listen on {address}: {error}; choose another with {option}")]
    Port {
        /// The address.
        address: SocketAddr,
        /// The option that names it.
        option: &'static str,
        /// Why not.
        error: std::io::Error,
    },
    /// The file of services cannot be used.
    #[error("InvalidConfig: the state file {}: {why}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An option that clap cannot judge.
    #[error("InvalidConfig: {0}")]
    Option(String),
    /// No cluster is configured.
    #[error("InvalidConfig: no cluster is configured: {0}")]
    Cluster(String),
    /// The system refuses something that it always gives.
    #[error("Internal: {0}")]
    Internal(String),
}

impl Failure {
    /// The process's exit code; 2 is left to the command line's own errors.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Internal(_) => 1,
            Self::State { .. } | Self::Option(_) | Self::Cluster(_) => 20,
            Self::Port { .. } => 23,
        }
    }
}
