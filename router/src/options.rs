//! The command line. Each option is also an environment variable, `ORTOLAN_…`; the command line wins.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{ArgGroup, Parser, ValueEnum};
use jiff::fmt::friendly::SpanParser;

use edge::Edge;

use crate::stats::token::Account;

pub mod edge;

/// Routes the requests of inference services: splits them over revisions, balances them over pods, tries again, and
/// holds them while there is no pod.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ortolan-router",
    version,
    max_term_width = 100,
    args_override_self = true
)]
#[command(group = ArgGroup::new("source").required(true).args(["state", "kubernetes"]))]
pub struct Options {
    /// Read the services from this file, YAML or JSON, and again whenever it changes.
    #[arg(long, value_name = "FILE", env = "ORTOLAN_STATE")]
    pub state: Option<PathBuf>,

    /// Watch InferenceServices and EndpointSlices of the cluster.
    #[arg(long, env = "ORTOLAN_KUBERNETES")]
    pub kubernetes: bool,

    /// How to use the cluster.
    #[command(flatten)]
    pub cluster: Cluster,

    /// The address for requests: HTTP/1.1, HTTP/2 and gRPC.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        env = "ORTOLAN_HTTP"
    )]
    pub http: SocketAddr,

    /// The address for /metrics, /healthz/live, /healthz/ready and /table.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:9090",
        env = "ORTOLAN_ADMIN"
    )]
    pub admin: SocketAddr,

    /// TLS, and what one client may ask for.
    #[command(flatten)]
    pub edge: Edge,

    /// What the operator is told.
    #[command(flatten)]
    pub stats: Stats,

    /// What names of the cluster end with.
    #[arg(
        long,
        value_name = "DOMAIN",
        default_value = "cluster.local",
        env = "ORTOLAN_CLUSTER_DOMAIN"
    )]
    pub cluster_domain: String,

    /// A host that is the router itself, where /NAMESPACE/NAME/… names the service; addresses and localhost are
    /// in any case. May be given several times.
    #[arg(
        long,
        value_name = "HOST",
        value_delimiter = ',',
        env = "ORTOLAN_OWN_HOST"
    )]
    pub own_host: Vec<String>,

    /// Requests of one service that may wait for a pod.
    #[arg(
        long,
        value_name = "N",
        default_value = "1000",
        env = "ORTOLAN_HOLD_REQUESTS"
    )]
    pub hold_requests: usize,

    /// Bytes that the bodies of those may take [default: 256 MiB].
    #[arg(long, value_name = "N", default_value_t = 256 << 20, hide_default_value = true, env = "ORTOLAN_HOLD_BYTES")]
    pub hold_bytes: usize,

    /// Refuse a request whose body is larger, in bytes; streams of gRPC have no end [default: 64 MiB].
    #[arg(long, value_name = "N", default_value_t = 64 << 20, hide_default_value = true, env = "ORTOLAN_MAX_BODY_BYTES")]
    pub max_body_bytes: u64,

    /// Keep so much of a body, so that the request can be sent again [default: 1 MiB].
    #[arg(long, value_name = "N", default_value_t = 1 << 20, hide_default_value = true, env = "ORTOLAN_REPLAY_BYTES")]
    pub replay_bytes: usize,

    /// Keep so much of all bodies together [default: 256 MiB].
    #[arg(long, value_name = "N", default_value_t = 256 << 20, hide_default_value = true, env = "ORTOLAN_REPLAY_MEMORY")]
    pub replay_memory: usize,

    /// How long the head of a request may take, and how long a connection of HTTP/1.1 may be idle.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = time, env = "ORTOLAN_HEADER_TIMEOUT")]
    pub header_timeout: Duration,

    /// The largest head of a request, in bytes [default: 64 KiB].
    #[arg(long, value_name = "N", default_value_t = 64 << 10, hide_default_value = true, env = "ORTOLAN_MAX_HEADER_BYTES")]
    pub max_header_bytes: usize,

    /// Headers in the head of a request over HTTP/1.1.
    #[arg(
        long,
        value_name = "N",
        default_value = "100",
        env = "ORTOLAN_MAX_HEADERS"
    )]
    pub max_headers: usize,

    /// How long to serve on after SIGTERM before the port is closed.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time, env = "ORTOLAN_DRAIN_DELAY")]
    pub drain_delay: Duration,

    /// How long requests may take after that.
    #[arg(long, value_name = "TIME", default_value = "35s", value_parser = time, env = "ORTOLAN_GRACE")]
    pub grace: Duration,

    /// Threads that serve [default: as many as there are processors].
    #[arg(long, value_name = "N", env = "ORTOLAN_ROUTER_THREADS")]
    pub threads: Option<NonZeroUsize>,

    /// Log one line a request.
    #[arg(long, env = "ORTOLAN_ACCESS_LOG")]
    pub access_log: bool,

    /// How to write log lines.
    #[arg(long, value_enum, default_value = "text", env = "ORTOLAN_LOG_FORMAT")]
    pub log_format: LogFormat,

    /// What is logged: a level, or levels by module, such as info,ortolan_router=debug.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "ORTOLAN_LOG"
    )]
    pub log: String,
}

/// How to use the cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Cluster {
    /// With --kubernetes: this namespace only; all when absent.
    #[arg(
        long,
        value_name = "NAMESPACE",
        conflicts_with = "state",
        env = "ORTOLAN_NAMESPACE"
    )]
    pub namespace: Option<String>,

    /// With --kubernetes: keep what was seen last in this file, and begin with it.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "state",
        env = "ORTOLAN_LAST_STATE"
    )]
    pub last_state: Option<PathBuf>,

    /// With --kubernetes: the routers' own Service, NAMESPACE/NAME; its ready pods share the places that
    /// maxConcurrency gives [default: this router has them all].
    #[arg(
        long,
        value_name = "SERVICE",
        conflicts_with = "state",
        requires = "pod_ip",
        env = "ORTOLAN_ROUTER_SERVICE"
    )]
    pub router_service: Option<String>,

    /// With --router-service: this pod's address.
    #[arg(long, value_name = "IP", env = "POD_IP")]
    pub pod_ip: Option<std::net::IpAddr>,

    /// With --kubernetes: from the first try of a request to the head of its answer.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, env = "ORTOLAN_TIMEOUT")]
    pub timeout: Duration,

    /// With --kubernetes: how often a request is tried again.
    #[arg(long, value_name = "N", default_value = "2", env = "ORTOLAN_RETRIES")]
    pub retries: u32,

    /// With --kubernetes: how long a request waits for a pod.
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = time, env = "ORTOLAN_HOLD_TIMEOUT")]
    pub hold_timeout: Duration,
}

/// What the operator is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Stats {
    /// The address for /stats, a stream of what came of the requests [default: none].
    #[arg(long, value_name = "ADDR", env = "ORTOLAN_STATS")]
    pub stats: Option<SocketAddr>,

    /// With --stats, in a cluster: this ServiceAccount reads the stream, by a token of its own for the audience
    /// ortolan-router-stats. Written NAMESPACE/NAME.
    #[arg(
        long,
        value_name = "ACCOUNT",
        conflicts_with = "stats_token_file",
        env = "ORTOLAN_STATS_READER"
    )]
    pub stats_reader: Option<Account>,

    /// With --stats: who reads the stream has to send what stands in this file as a bearer token. The file may change.
    /// Without this and --stats-reader the address has to be one of loopback.
    #[arg(long, value_name = "FILE", env = "ORTOLAN_STATS_TOKEN_FILE")]
    pub stats_token_file: Option<PathBuf>,

    /// With --stats: what this router calls itself there [default: the name of the host].
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub router_name: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A length of time, as in the file: `5s`, `250ms`, `1m 30s`.
fn time(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    SpanParser::new()
        .parse_unsigned_duration(text)
        .map_err(|_| format!("{text:?} is no length of time: write for instance 5s, 250ms or 2m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[&str]) -> Result<Options, String> {
        let all = [&["ortolan-router"], options].concat();
        Options::try_parse_from(all).map_err(|error| error.to_string())
    }

    #[test]
    fn one_source_is_needed_and_not_two() {
        assert!(read(&["--state", "x"]).is_ok() && read(&["--kubernetes"]).is_ok());
        for wrong in [
            &[][..],
            &["--state", "x", "--kubernetes"],
            &["--state", "x", "--last-state", "y"],
            &["--kubernetes", "--router-service", "a/b"],
            &[
                "--state",
                "x",
                "--stats-reader",
                "a/b",
                "--stats-token-file",
                "y",
            ],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn who_reads_the_counts_is_an_account() {
        let of = |account| read(&["--kubernetes", "--stats-reader", account]);
        let account = of("ns/operator").unwrap().stats.stats_reader.unwrap();
        assert_eq!(account.to_string(), "system:serviceaccount:ns:operator");
        assert!(of("operator").unwrap_err().contains("write NAMESPACE/NAME"));
    }

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, millis) in [("5s", 5000), ("250ms", 250), ("1m 30s", 90_000), ("0", 0)] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "soon", "-1s"] {
            assert!(
                time(text).unwrap_err().contains("write for instance"),
                "{text}"
            );
        }
    }
}
