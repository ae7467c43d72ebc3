//! `ortolan-server bench`: sends load to a server and tells its latency.
//!
//! Any server of the Open Inference Protocol V2, over HTTP/1.1 or gRPC, or any path that takes a body. Sends to the one address
//! that the URL names and nowhere else. One thread; its own CPU time is told beside the server's.

use std::{cell::RefCell, path::PathBuf, rc::Rc, time::Duration};

use super::{Refusal, inputs::InputOptions, internal};
use crate::{
    options::parse_duration,
    process::{self, CpuTimes},
};

mod address;
pub mod arrivals;
mod calls;
mod client;
pub mod grpc;
pub mod http;
pub mod load;
mod render;
mod request;
pub mod tally;
mod timer;

use arrivals::Pattern;
use client::Target;
use load::{Loop, Plan};
pub use render::Report;
use tally::Ending;

/// `ortolan-server bench`
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The server: http://HOST:PORT, with a path before /v2 if it has one.
    #[arg(value_name = "URL")]
    pub url: String,

    /// The model to send V2 inference requests to.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,

    /// Its version [default: the server's choice].
    #[arg(long, value_name = "V")]
    pub model_version: Option<String>,

    /// Open loop: so many requests a second, whatever the server answers. Without it the loop is
    /// closed.
    #[arg(long, value_name = "R", value_parser = rate)]
    pub rate: Option<f64>,

    /// The distances between the requests of an open loop.
    #[arg(long, value_enum, default_value = "poisson", requires = "rate")]
    pub arrivals: Pattern,

    /// Open loop: connections to send on. A request waits when all are busy; that is part of its
    /// latency.
    #[arg(long, value_name = "N", default_value = "64", requires = "rate", value_parser = connections())]
    pub connections: u32,

    /// Closed loop: connections, each of which sends its next request when it has its answer.
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "rate", value_parser = connections())]
    pub concurrency: u32,

    /// How long to count [default: 10s, or until --requests have been sent].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Stop after so many counted requests.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,

    /// Load before that, which is not counted.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub warm_up: Duration,

    /// A request that takes longer has failed.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// Send tensors as binary data, and ask for binary answers.
    #[arg(long, conflicts_with = "bodies")]
    pub binary: bool,

    /// Send V2 inference requests over gRPC; with --body the file's bytes are the message.
    #[arg(long, conflicts_with = "binary")]
    pub grpc: bool,

    /// gRPC: requests under way that share a connection.
    #[arg(long, value_name = "N", default_value = "1", requires = "grpc", value_parser = connections())]
    pub streams: u32,

    /// Rows in a request: the first dimension of every input.
    #[arg(long, value_name = "N", conflicts_with_all = ["bodies", "data"], value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: Option<u32>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub inputs: InputOptions,

    /// Send this file as it is; may be given several times, the files are sent in turn.
    #[arg(long = "body", value_name = "FILE", conflicts_with_all = ["data", "shapes"])]
    pub bodies: Vec<PathBuf>,

    /// The content type of --body.
    #[arg(long, value_name = "T", default_value = "application/json")]
    pub content_type: String,

    /// The path to send to [default: /v2/models/NAME/infer, for --body /predict/NAME; the method of a
    /// gRPC call].
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,

    /// A header of every request, 'Name: value'; may be given several times.
    #[arg(long = "header", value_name = "HEADER")]
    pub headers: Vec<request::Header>,

    /// The server's process on this machine: its CPU time, and that of the processes it started,
    /// is told as well. May be given several times.
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,

    /// Another number gives other Poisson distances.
    #[arg(long, value_name = "N", default_value = "1", requires = "rate")]
    pub seed: u64,

    /// Write JSON.
    #[arg(long)]
    pub json: bool,
}

fn connections() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=16_384)
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.001..=1e6).contains(&rate) => Ok(rate),
        _ => Err("write requests a second, from 0.001 to 1000000".to_owned()),
    }
}

/// So long when a number of requests is the limit.
const A_DAY: Duration = Duration::from_secs(86_400);

impl Options {
    fn plan(&self) -> Plan {
        let by = match self.rate {
            Some(rate) => Loop::Open {
                pattern: self.arrivals,
                rate,
                connections: self.connections as usize,
                seed: self.seed,
            },
            None => Loop::Closed {
                concurrency: self.concurrency as usize,
            },
        };
        let default = match self.requests {
            Some(_) => A_DAY,
            None => Duration::from_secs(10),
        };
        Plan {
            by,
            warm_up: self.warm_up,
            duration: self.duration.unwrap_or(default),
            requests: self.requests,
            timeout: self.timeout,
        }
    }
}

/// Sends the load and gives the report.
pub fn run(options: &Options) -> Result<String, Refusal> {
    if options.timeout.is_zero() || options.duration.is_some_and(|time| time.is_zero()) {
        return Err(Refusal::Data(
            "--timeout and --duration must be longer than 0".to_owned(),
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(internal)?;
    let local = tokio::task::LocalSet::new();
    let report = local.block_on(&runtime, measure(options))?;
    Ok(if options.json {
        format!("{:#}", serde_json::to_value(&report).map_err(internal)?)
    } else {
        render::text(&report)
    })
}

/// CPU times when the counting began.
#[derive(Default)]
struct Before {
    own: Duration,
    server: CpuTimes,
}

async fn measure(options: &Options) -> Result<Report, Refusal> {
    CpuTimes::of(&options.pids).map_err(Refusal::Data)?;
    let base = address::resolve(&options.url).await?;
    let requests = request::make(options, &base).await?;
    let target = Rc::new(Target {
        address: base.address,
        wire: requests.wire.clone(),
        requests: requests.whole.clone(),
    });
    knock(options, &target, &requests.line).await?;
    let before = Rc::new(RefCell::new(Before::default()));
    let counting = {
        let (before, pids) = (Rc::clone(&before), options.pids.clone());
        move || {
            *before.borrow_mut() = Before {
                own: process::own_cpu(),
                server: CpuTimes::of(&pids).unwrap_or_default(),
            };
        }
    };
    let stop = async {
        // Without a signal handler Ctrl-C ends the process, as it would anyway.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let plan = options.plan();
    let (tally, took) = load::run(target, plan, counting, stop)
        .await
        .map_err(internal)?;
    let before = before.take();
    let server = match CpuTimes::of(&options.pids) {
        _ if options.pids.is_empty() => None,
        Ok(now) => Some(now.since(&before.server)),
        Err(_) => None,
    };
    if tally.successes() == 0 {
        let why = tally.endings.keys().map(ToString::to_string);
        let why: Vec<String> = why.collect();
        return Err(Refusal::Target(format!(
            "{}: no request succeeded in {took:.1?} ({})",
            requests.line,
            if why.is_empty() {
                "none ended".to_owned()
            } else {
                why.join(", ")
            }
        )));
    }
    let own = process::own_cpu().saturating_sub(before.own);
    Ok(Report::new(plan, &requests, &tally, took, own, server))
}

const DEADLINE_EXCEEDED: i32 = 4;
const RESOURCE_EXHAUSTED: i32 = 8;

/// One request beforehand: a wrong path, model or body shows before anything is measured.
async fn knock(options: &Options, target: &Target, line: &str) -> Result<(), Refusal> {
    let mut client = client::Client::new(target);
    let ended = tokio::time::timeout(options.timeout, client.exchange(target, 0)).await;
    let Ok(ended) = ended else {
        return Err(Refusal::Target(format!(
            "{line} does not answer within {:?}",
            options.timeout
        )));
    };
    match ended.ending {
        // Too many requests, or one that took too long, is a matter of load: measure it.
        Ending::Http(408 | 429) => Ok(()),
        Ending::Grpc(RESOURCE_EXHAUSTED | DEADLINE_EXCEEDED) => Ok(()),
        Ending::Http(300..=499) | Ending::Broken(_) | Ending::Grpc(1..) => {
            Err(Refusal::Target(format!(
                "{line}: the first request got {}{}{}",
                ended.ending,
                if ended.words.is_empty() { "" } else { ": " },
                ended.words
            )))
        }
        _ => Ok(()),
    }
}
