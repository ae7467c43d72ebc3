//! The command line. Each option can also be given as the environment variable `ORTOLAN_<NAME>`;
//! the command line wins, and of an option given twice the last one. Values that clap cannot judge are checked where they are used.

use std::{
    collections::BTreeSet, ffi::OsString, net::SocketAddr, num::NonZeroUsize, path::PathBuf,
    str::FromStr, time::Duration,
};

use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum, parser::ValueSource};
use ortolan_model::{
    OwnConfig,
    settings::{Batching, Mode},
};

use crate::{access::Access, observe::ObserveOptions, repository::RepositoryOptions};

const TOOLS: &str = "Tools, asked for by the first word (a model of that name is written ./bench):
  ortolan-server inspect MODEL_URI             what is in a model
  ortolan-server tune MODEL_URI                which sessions, threads and batches to run it with
  ortolan-server bench URL                     load, and the latency that it meets
  ortolan-server optimize MODEL_URI -o OUT     ONNX Runtime's offline optimisation
Each has its own --help.";

/// Serves ONNX models over HTTP: Open Inference Protocol V2, V1 predict, and photographs, texts, files and rows as they are.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ortolan-server",
    version,
    max_term_width = 100,
    args_override_self = true,
    after_help = TOOLS
)]
pub struct Options {
    /// The model: a path, file://, http(s):// or pvc://CLAIM/PATH; a bare .onnx or an archive
    /// (.tar, .tar.gz, .tgz, .tar.zst, .zip) of one .onnx with its model.yaml and labels; or a
    /// repository of several models, as a directory or an archive.
    #[arg(value_name = "MODEL_URI", env = "ORTOLAN_MODEL_URI")]
    pub uri: String,

    /// The model's name in URLs and metrics, of a-z 0-9 . _ - [default: from the URI's file name].
    #[arg(long, env = "ORTOLAN_NAME")]
    pub name: Option<String>,

    /// The model's version in URLs and metrics; a repository has its own.
    #[arg(
        long,
        value_name = "V",
        default_value = "1",
        env = "ORTOLAN_MODEL_VERSION"
    )]
    pub model_version: String,

    /// Serve only a file with this digest, sha256:HEX.
    #[arg(long, value_name = "DIGEST", env = "ORTOLAN_DIGEST")]
    pub digest: Option<String>,

    /// A file that may hold the expected digest; when it is missing or empty nothing is expected.
    #[arg(long, value_name = "PATH", env = "ORTOLAN_RECORDED_DIGEST_FILE")]
    pub recorded_digest_file: Option<PathBuf>,

    /// The address to listen on.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        env = "ORTOLAN_HTTP"
    )]
    pub http: SocketAddr,

    /// An address for gRPC alone; the address of --http answers gRPC in any case.
    #[arg(long, value_name = "ADDR", env = "ORTOLAN_GRPC")]
    pub grpc: Option<SocketAddr>,

    /// Serve with TLS: the certificate in PEM, then those that signed it. Read again when it changes.
    #[arg(
        long,
        value_name = "PATH",
        requires = "tls_key",
        env = "ORTOLAN_TLS_CERT"
    )]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key in PEM.
    #[arg(
        long,
        value_name = "PATH",
        requires = "tls_cert",
        env = "ORTOLAN_TLS_KEY"
    )]
    pub tls_key: Option<PathBuf>,

    /// Let only clients in that have a certificate signed by one of these, in PEM.
    #[arg(
        long,
        value_name = "PATH",
        requires = "tls_cert",
        env = "ORTOLAN_TLS_CLIENT_CA"
    )]
    pub tls_client_ca: Option<PathBuf>,

    /// How many sessions run beside each other; auto takes the container's CPU quota.
    #[arg(
        long,
        value_name = "auto|N",
        default_value = "auto",
        env = "ORTOLAN_SESSIONS"
    )]
    pub sessions: Sessions,

    /// Threads inside one session.
    #[arg(long, value_name = "N", default_value = "1", env = "ORTOLAN_THREADS")]
    pub threads: NonZeroUsize,

    /// Requests that may wait for a session; one more is answered 503.
    #[arg(long, value_name = "N", default_value = "256", env = "ORTOLAN_QUEUE")]
    pub queue: NonZeroUsize,

    /// Predictions that may be under way at once, over all models and protocols, waiting ones included; one more is
    /// answered 503 before its body is read [default: no limit].
    #[arg(long, value_name = "N", env = "ORTOLAN_MAX_CONCURRENCY")]
    pub max_concurrency: Option<NonZeroUsize>,

    /// Let up to N rows of waiting requests run together, and refuse a request of more; 1 runs each
    /// request alone [default: up to 32, where measuring the model at its start shows that it pays].
    #[arg(long, value_name = "N", env = "ORTOLAN_MAX_BATCH")]
    pub max_batch: Option<NonZeroUsize>,

    /// Numbers of rows that run as soon as they wait, while others wait for --max-delay.
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        env = "ORTOLAN_PREFERRED_BATCH"
    )]
    pub preferred_batch: Vec<NonZeroUsize>,

    /// How long a request may be held back for others to run with [default: not at all].
    #[arg(long, value_name = "TIME", value_parser = parse_duration, env = "ORTOLAN_MAX_DELAY")]
    pub max_delay: Option<Duration>,

    /// Keep up to so many bytes of answers, and give the same answer to the same inputs without a run
    /// [default: 0, keep nothing].
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        hide_default_value = true,
        env = "ORTOLAN_RESPONSE_CACHE"
    )]
    pub response_cache: u64,

    /// Stop a run that takes longer and answer 500 [default: no limit].
    #[arg(long, value_name = "TIME", value_parser = parse_limit, env = "ORTOLAN_RUN_LIMIT")]
    pub run_limit: Option<Duration>,

    /// Where the model runs.
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        default_value = "CPU",
        env = "ORTOLAN_PROVIDER"
    )]
    pub provider: Provider,

    /// What to do when the provider does not load: refuse to serve, or serve on the CPU.
    #[arg(long, value_enum, default_value = "fail", env = "ORTOLAN_FALLBACK")]
    pub fallback: Fallback,

    /// The provider's plugin library, where ONNX Runtime's own does not bring the provider along
    /// [default: searched where ONNX Runtime's library is].
    #[arg(long, value_name = "PATH", env = "ORTOLAN_PROVIDER_LIBRARY")]
    pub provider_library: Option<PathBuf>,

    /// Keep up to so many bytes of optimised graphs below the cache directory, and load a model from
    /// there when it comes again [default: 0, keep none].
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 0,
        hide_default_value = true,
        env = "ORTOLAN_OPTIMIZED_GRAPH_CACHE"
    )]
    pub optimized_graph_cache: u64,

    /// Before the server is ready, run each session once on zeros of the model's shapes and look whether rows may run
    /// together; off for a model that cannot run on invented inputs.
    #[arg(long, value_enum, default_value = "auto", env = "ORTOLAN_WARM_UP")]
    pub warm_up: WarmUp,

    /// How models are got at.
    #[command(flatten)]
    pub access: Access,

    /// A model.yaml of your own: its sections replace those of the model's; the labels and the tokenizer
    /// that it names lie in the model's package.
    #[arg(long, value_name = "PATH", env = "ORTOLAN_MODEL_CONFIG")]
    pub model_config: Option<PathBuf>,

    /// The same as text, in YAML or JSON: {"pipeline": {"input": {…}, "output": {…}}}.
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "model_config",
        env = "ORTOLAN_MODEL_CONFIG_INLINE"
    )]
    pub model_config_inline: Option<String>,

    /// Refuse a request whose body is larger, in bytes [default: 64 MiB].
    #[arg(
        long, value_name = "N", default_value_t = 64 << 20,
        hide_default_value = true, env = "ORTOLAN_MAX_BODY_BYTES"
    )]
    pub max_body_bytes: usize,

    /// How long to serve on after SIGTERM before the port is closed.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration, env = "ORTOLAN_DRAIN_DELAY")]
    pub drain_delay: Duration,

    /// How long queued requests may take after that.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, env = "ORTOLAN_GRACE")]
    pub grace: Duration,

    /// Where to write the last error [default: /dev/termination-log when it exists].
    #[arg(long, value_name = "PATH", env = "ORTOLAN_TERMINATION_LOG")]
    pub termination_log: Option<PathBuf>,

    /// How to write log lines.
    #[arg(long, value_enum, default_value = "text", env = "ORTOLAN_LOG_FORMAT")]
    pub log_format: LogFormat,

    /// What is told of requests and models.
    #[command(flatten)]
    pub observe: ObserveOptions,
    /// Several models.
    #[command(flatten)]
    pub repository: RepositoryOptions,

    /// The options that are not at their defaults because somebody wrote them.
    #[arg(skip)]
    given: BTreeSet<String>,
}

impl Options {
    /// Reads the process's command line and environment.
    pub fn read() -> Result<Self, clap::Error> {
        Self::read_from(std::env::args_os())
    }

    /// Reads a command line, the program's name first, and the environment.
    pub fn read_from<T: Into<OsString> + Clone>(
        args: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(args)?;
        let mut options = Self::from_arg_matches(&matches)?;
        let is_given = |id: &&clap::Id| {
            let source = matches.value_source(id.as_str());
            source.is_some_and(|source| source != ValueSource::DefaultValue)
        };
        let given = matches.ids().filter(is_given);
        options.given = given.map(|id| id.as_str().to_owned()).collect();
        Ok(options)
    }

    /// Whether somebody wrote this option, by its field's name.
    #[must_use]
    pub fn is_given(&self, field: &str) -> bool {
        self.given.contains(field)
    }
}

impl Options {
    /// The user's own `model.yaml`.
    #[must_use]
    pub fn own_config(&self) -> Option<OwnConfig> {
        let file = self.model_config.clone().map(OwnConfig::File);
        file.or_else(|| self.model_config_inline.clone().map(OwnConfig::Inline))
    }

    /// How requests are put together; saying anything about it asks for it.
    #[must_use]
    pub fn batching(&self) -> Batching {
        let mut preferred: Vec<usize> = self.preferred_batch.iter().map(|n| n.get()).collect();
        preferred.sort_unstable();
        preferred.dedup();
        let max = self.max_batch.map(NonZeroUsize::get);
        let says_something = max.is_some() || !preferred.is_empty() || self.max_delay.is_some();
        let mode = match max {
            Some(1) => Some(Mode::Alone),
            _ => says_something.then_some(Mode::Together),
        };
        Batching {
            mode,
            // 1 is the switch, not a bound for single requests.
            max: max.filter(|max| *max > 1),
            preferred,
            max_delay: self.max_delay,
        }
    }
}

/// How many sessions to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// As many as the container's CPU quota allows.
    Auto,
    /// Exactly so many.
    Exactly(NonZeroUsize),
}

impl FromStr for Sessions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse::<NonZeroUsize>() {
            Ok(n) if n.get() <= 1024 => Ok(Self::Exactly(n)),
            _ => Err("write auto, or a number from 1 to 1024".to_owned()),
        }
    }
}

/// ONNX Runtime's execution providers that a user can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
pub enum Provider {
    /// The processor.
    CPU,
    /// NVIDIA, through CUDA.
    CUDA,
    /// NVIDIA, through TensorRT.
    TensorRT,
    /// The processor (Intel's above all), through OpenVINO.
    OpenVINO,
    /// The processor, through XNNPACK.
    XNNPACK,
    /// AMD, through ROCm.
    ROCm,
}

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 6] = [
        Self::CPU,
        Self::CUDA,
        Self::TensorRT,
        Self::OpenVINO,
        Self::XNNPACK,
        Self::ROCm,
    ];

    /// As users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CPU => "CPU",
            Self::CUDA => "CUDA",
            Self::TensorRT => "TensorRT",
            Self::OpenVINO => "OpenVINO",
            Self::XNNPACK => "XNNPACK",
            Self::ROCm => "ROCm",
        }
    }

    /// Whether it computes on a card beside the processor: such a card runs one session's kernels after the
    /// other, and each session holds the weights.
    #[must_use]
    pub const fn is_gpu(self) -> bool {
        match self {
            Self::CUDA | Self::TensorRT | Self::ROCm => true,
            Self::CPU | Self::OpenVINO | Self::XNNPACK => false,
        }
    }
}

/// What to do without the provider that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fallback {
    /// Refuse to serve: exit code 16.
    Fail,
    /// Serve on the CPU and say so.
    Allow,
}

/// Whether a model runs before it counts as ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WarmUp {
    /// Each session runs once, on inputs made from the graph; a run that fails ends the start.
    #[default]
    Auto,
    /// The first request of each session is its first run.
    Off,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Reads a length of time: `5s`, `250ms`, `2m`, `0`, or a bare number of seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no time: write for instance 5s, 250ms or 2m"))?;
    let seconds = match unit {
        "" | "s" => number,
        "ms" => number / 1e3,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time: write ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text:?} is no length of time"))
}

/// A time that is not zero.
fn parse_limit(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => {
            Err("0 would stop every run: leave the option out for no limit".to_owned())
        }
        limit => Ok(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saying_anything_about_batches_asks_for_them_and_1_switches_them_off() {
        let batching = |options: &[&str]| {
            let all = [&["ortolan-server", "m.onnx"], options].concat();
            Options::try_parse_from(all).unwrap().batching()
        };
        assert_eq!(batching(&[]), Batching::default());
        let asked = batching(&["--preferred-batch", "8,4,8", "--max-delay", "2ms"]);
        assert_eq!((asked.mode, asked.max), (Some(Mode::Together), None));
        assert_eq!(asked.preferred, [4, 8]);
        assert_eq!(asked.max_delay, Some(Duration::from_millis(2)));
        let alone = batching(&["--max-batch", "1"]);
        assert_eq!((alone.mode, alone.max), (Some(Mode::Alone), None));
        assert_eq!(batching(&["--max-batch", "64"]).max, Some(64));
        for wrong in [
            ["--max-batch", "0"],
            ["--run-limit", "0"],
            ["--preferred-batch", "4,x"],
        ] {
            let all = [&["ortolan-server", "m.onnx"][..], &wrong].concat();
            assert!(Options::try_parse_from(all).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        for (text, millis) in [
            ("5s", 5000),
            ("250ms", 250),
            ("2m", 120_000),
            ("0", 0),
            ("1.5", 1500),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in ["", "s", "5 s", "-1s", "5d", "1e400"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sessions_are_auto_or_a_number_that_is_not_zero() {
        assert_eq!("auto".parse(), Ok(Sessions::Auto));
        assert_eq!(
            "3".parse(),
            Ok(Sessions::Exactly(NonZeroUsize::new(3).unwrap()))
        );
        for text in ["0", "-1", "all", "", "5000"] {
            assert!(text.parse::<Sessions>().is_err(), "{text}");
        }
    }

    #[test]
    fn providers_are_read_in_any_case() {
        let options =
            Options::try_parse_from(["ortolan-server", "m.onnx", "--provider", "cuda"]).unwrap();
        assert_eq!(options.provider, Provider::CUDA);
        assert_eq!(options.drain_delay, Duration::from_secs(5));
        assert!(
            Options::try_parse_from(["ortolan-server", "m.onnx", "--provider", "TPU"]).is_err()
        );
    }
}
