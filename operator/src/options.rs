//! The command line. Every option is also an environment variable, `ORTOLAN_…`.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ortolan_core::validate::Defaults;
use ortolan_crds::Provider;

/// Serves ONNX models on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "ortolan-operator", version, about)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch InferenceServices and do what they say, until a signal comes.
    Run(Box<Run>),
    /// Print the CustomResourceDefinitions as YAML.
    Crd,
    /// Say whether the API is installed and InferenceServices can be listed.
    Check(Scope),
}

/// Which namespaces.
#[derive(Clone, Debug, Default, Args)]
pub struct Scope {
    /// Watch this namespace only; all namespaces when absent.
    #[arg(long, env = "ORTOLAN_NAMESPACE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub namespace: Option<String>,
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// Which namespaces.
    #[command(flatten)]
    pub scope: Scope,
    /// The server's image for models on the CPU.
    #[arg(long, env = "ORTOLAN_SERVER_IMAGE_CPU", default_value = "")]
    pub server_image_cpu: String,
    /// The server's image for models on NVIDIA GPUs.
    #[arg(long, env = "ORTOLAN_SERVER_IMAGE_CUDA", default_value = "")]
    pub server_image_cuda: String,
    /// The pull policy of the server's image; Kubernetes' own default when absent.
    #[arg(long, env = "ORTOLAN_IMAGE_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: Option<String>,
    /// The full name of the routers' Service, such as `ortolan-router.ortolan-system.svc.cluster.local`: the Service of each
    /// InferenceService becomes an alias of it. Without it that Service selects the pods of the revision that serves.
    #[arg(long, env = "ORTOLAN_ROUTER", value_parser = router_name)]
    pub router: Option<String>,
    /// The port of the routers' stream of counts, which the leader reads; only with --router.
    #[arg(long, env = "ORTOLAN_ROUTER_STATS_PORT", default_value_t = 9091)]
    pub router_stats_port: u16,
    /// The file with the token that opens that stream, in a cluster a projected one of the operator's ServiceAccount; it may
    /// change.
    #[arg(long, env = "ORTOLAN_ROUTER_STATS_TOKEN_FILE", value_name = "FILE")]
    pub router_stats_token_file: Option<PathBuf>,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "ORTOLAN_HTTP", default_value = "0.0.0.0:8080")]
    pub http: SocketAddr,
    /// Whether only the holder of a Lease writes. Switch it off only for a single replica.
    #[arg(long, env = "ORTOLAN_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// The Lease's name: one for each installation in a namespace.
    #[arg(long, env = "ORTOLAN_LEASE_NAME", default_value = "ortolan-operator")]
    pub lease_name: String,
    /// The Lease's namespace; the operator's own when absent.
    #[arg(long, env = "ORTOLAN_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// How many InferenceServices are worked on at once.
    #[arg(long, env = "ORTOLAN_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub concurrency: u16,
    /// How log lines look.
    #[arg(long, env = "ORTOLAN_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: a level, or levels by module, such as `info,ortolan_operator=debug`.
    #[arg(long, env = "ORTOLAN_LOG", default_value = "info")]
    pub log: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Run {
    /// What the platform chose.
    #[must_use]
    pub fn defaults(&self) -> Defaults {
        let images = [
            (Provider::CPU, &self.server_image_cpu),
            (Provider::CUDA, &self.server_image_cuda),
        ];
        let images: BTreeMap<_, _> = images
            .into_iter()
            .filter(|(_, image)| !image.is_empty())
            .map(|(provider, image)| (provider, image.clone()))
            .collect();
        Defaults {
            images,
            image_pull_policy: self.image_pull_policy.clone(),
            router: self.router.clone(),
        }
    }
}

/// An alias resolves only to a full name; Kubernetes refuses anything but lower-case labels.
fn router_name(name: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let mut all = label.chars();
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && all.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    let labels: Vec<&str> = name.split('.').collect();
    match labels.get(2) {
        Some(&"svc") if labels.len() >= 4 && labels.iter().all(|label| is_label(label)) => {
            Ok(name.to_owned())
        }
        _ => Err(format!(
            "{name:?} is no full name of a Service: write NAME.NAMESPACE.svc.CLUSTER_DOMAIN, such as ortolan-router.ortolan-system.svc.cluster.local"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_name_of_a_service_is_taken_for_the_routers() {
        for good in ["r.ns.svc.cluster.local", "ortolan-router.a-1.svc.local"] {
            assert_eq!(router_name(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "router",
            "r.ns",
            "r.ns.svc",
            "r.ns.pod.cluster.local",
            "R.ns.svc.a",
            "r..svc.a",
            "-r.ns.svc.a",
        ] {
            let refused = router_name(bad).expect_err(bad);
            assert!(
                refused.contains("NAME.NAMESPACE.svc.CLUSTER_DOMAIN"),
                "{refused}"
            );
        }
    }
}
