//! The router's life: read → listen → serve → drain.

use std::{io::IsTerminal as _, num::NonZeroUsize, sync::Arc};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    access, admin,
    body::Memory,
    copies,
    directory::Directory,
    failure::Failure,
    hold::Bounds,
    metrics::Metrics,
    options::{LogFormat, Options, edge::Edge},
    phase::{Ending, Phase},
    ports::{Ports, bind},
    proxy::{Limits, Proxy},
    rate::Limiter,
    source,
    stats::Stats,
    target::Names,
};

/// One thread needs no other to be woken for it.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime(threads: Option<NonZeroUsize>) -> Result<Runtime, Failure> {
    let threads = threads.or_else(|| std::thread::available_parallelism().ok());
    let mut builder = match threads.map_or(1, NonZeroUsize::get) {
        1 => Builder::new_current_thread(),
        n => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(n);
            builder
        }
    };
    builder
        .enable_all()
        .build()
        .map_err(|error| Failure::Internal(format!("cannot start threads: {error}")))
}

/// Sets the log up, on standard error. Who asks for the access log gets it whatever the filter says of the rest.
pub fn logging(options: &Options) {
    let filter: Targets = options.log.parse().unwrap_or_else(|error| {
        eprintln!("--log {:?} is no filter ({error}): using info", options.log);
        Targets::new().with_default(tracing::Level::INFO)
    });
    let filter = if options.access_log {
        filter.with_target(access::TARGET, tracing::Level::INFO)
    } else {
        filter
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let lines = match options.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::Internal(format!("cannot handle signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }
}

fn directory(options: &Options, metrics: &Metrics) -> Arc<Directory> {
    let names = Names {
        cluster_domain: options
            .cluster_domain
            .trim_matches('.')
            .to_ascii_lowercase(),
        own: options
            .own_host
            .iter()
            .map(|host| host.trim_end_matches('.').to_ascii_lowercase())
            .collect(),
    };
    let bounds = Bounds {
        requests: options.hold_requests,
        bytes: options.hold_bytes,
    };
    Arc::new(Directory::new(names, bounds, metrics.clone()))
}

fn limiter(edge: &Edge) -> Option<Limiter> {
    let trusted = edge.trusted_proxies.clone();
    edge.client_rate
        .map(|rate| Limiter::new(rate, edge.client_burst, trusted))
}

/// Serves until a signal, then drains.
///
/// # Errors
/// Why the router cannot begin.
pub async fn run(options: Options) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let metrics = Metrics::default();
    let directory = directory(&options, &metrics);
    let ports = Ports::bind(&options).await?;
    let admin = bind(options.admin, "--admin").await?;
    let stats = match Stats::of(&options.stats, None, Arc::clone(&directory)).await? {
        Some(stats) => Some((bind(stats.address, "--stats").await?, stats)),
        None => None,
    };
    let _source = source::start(&options, Arc::clone(&directory)).await?;
    if let Some((listener, stats)) = stats {
        if let Ok(address) = listener.local_addr() {
            tracing::info!("what comes of requests is told on http://{address}/stats");
        }
        tokio::spawn(async move { axum::serve(listener, stats.paths()).await });
    }
    let addresses = (ports.http(), admin.local_addr());
    if let (Ok(http), Ok(admin)) = addresses {
        tracing::info!("listening on http://{http}, admin on http://{admin}");
    }
    let router = admin::router(metrics.clone(), Arc::clone(&directory));
    // Until the very end: whoever watches the drain looks there.
    tokio::spawn(async move { axum::serve(admin, router).await });
    let ending = Arc::new(Ending::default());
    let proxy = Arc::new(proxy(&options, &directory, metrics));
    let serving = ports.serve(proxy, &ending);
    drain(&options, &mut signals, &ending, &directory, serving).await;
    Ok(())
}

fn proxy(options: &Options, directory: &Arc<Directory>, metrics: Metrics) -> Proxy {
    Proxy {
        directory: Arc::clone(directory),
        metrics,
        memory: Arc::new(Memory::new(options.replay_memory)),
        copies: Arc::new(Memory::new(copies::MEMORY)),
        limits: Limits {
            max_body: options.max_body_bytes,
            replay: options.replay_bytes,
            access_log: options.access_log,
        },
        limiter: limiter(&options.edge),
    }
}

/// Waits for a signal, and then until what is under way has ended.
async fn drain(
    options: &Options,
    signals: &mut Signals,
    ending: &Ending,
    directory: &Directory,
    serving: JoinHandle<()>,
) {
    let is_terminated = tokio::select! {
        _ = signals.terminate.recv() => true,
        _ = signals.interrupt.recv() => false,
    };
    ending.enter(Phase::Draining);
    // At a terminal nothing routes to us any more: there is nobody to wait for.
    if is_terminated {
        tracing::info!(
            "SIGTERM: serving on for {:?} while clients move away",
            options.drain_delay
        );
        tokio::select! {
            () = sleep(options.drain_delay) => {}
            _ = signals.interrupt.recv() => {}
        }
    }
    tracing::info!(
        "the port is closed; finishing what is under way, at most {:?}",
        options.grace
    );
    ending.enter(Phase::Closed);
    // Nobody knows when a pod comes; another router may wait for it.
    directory.end();
    tokio::select! {
        finished = timeout(options.grace, serving) => match finished {
            Ok(_) => tracing::info!("drained"),
            Err(_) => tracing::warn!("requests that still run are broken off"),
        },
        _ = signals.interrupt.recv() => tracing::warn!("requests that still run are broken off"),
    }
}
