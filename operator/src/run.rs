//! Puts the parts together, and takes them apart again when a signal comes.

use std::{io::IsTerminal as _, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::{FutureExt as _, StreamExt, stream};
use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Api, Client, Config,
    api::ListParams,
    runtime::{Controller, WatchStreamExt, controller, reflector, reflector::ObjectRef, watcher},
};
use ortolan_crds::InferenceService;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    asker::Asker,
    context::{Context, Indices, Memory},
    events::Teller,
    gate::{Gate, Tenure},
    gateways::Gateways,
    golden::{Golden, Reach},
    grants::Granter,
    lease,
    metrics::Metrics,
    options::{LogFormat, Run, Scope},
    outage::Outage,
    reconcile::{self, Watched, on_error},
    routers::{self, Collector, Listener},
    trim::Trim,
    watch as watches, web,
};

/// Changes that come within this time are worked on together.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Two threads: the work is waiting for the API server.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// Sets the log up, on standard error.
pub fn logging(options: &Run) {
    // Not EnvFilter: its regular expressions are a megabyte of the binary.
    let filter: Targets = options.log.parse().unwrap_or_else(|error| {
        eprintln!("--log {:?} is no filter ({error}): using info", options.log);
        Targets::new().with_default(tracing::Level::INFO)
    });
    let lines = tracing_subscriber::fmt::layer()
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

/// `check`: says whether InferenceServices can be listed.
///
/// # Errors
/// What is missing, in a sentence.
pub async fn check(scope: &Scope) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("no cluster is configured")?;
    let api: Api<InferenceService> = watches::api(client, scope.namespace.as_deref());
    let list = api.list_metadata(&ListParams::default().limit(1)).await.context(
        "InferenceServices cannot be listed: is the CustomResourceDefinition installed, and may this account list them?",
    )?;
    let more = list.metadata.remaining_item_count.unwrap_or(0);
    let count = list.items.len() + usize::try_from(more).unwrap_or(0);
    println!("serving.ortolan.dev/v1alpha1 is served; {count} InferenceServices");
    Ok(())
}

/// `run`: works until SIGTERM or SIGINT.
///
/// # Errors
/// When the cluster cannot be reached at the start, or the address cannot be listened on.
pub async fn run(options: Run) -> anyhow::Result<()> {
    let mut config = Config::infer().await.context("no cluster is configured")?;
    // Audit logs and API priority rules know a client by this name.
    let agent = HeaderValue::from_static(concat!("ortolan-operator/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(stop_on_signal(stop));
    operate(Client::try_from(config)?, options, stopping).await
}

/// The operator without its process: works through this client until `stopping` turns true.
///
/// # Errors
/// As [`run`].
pub async fn operate(
    client: Client,
    options: Run,
    stopping: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let namespace = options.scope.namespace.clone();
    let me = identity();
    let indices = Arc::new(Indices::default());
    let metrics = Metrics::default();
    let (leads, leading) = watch::channel(Tenure::None);

    let listener = TcpListener::bind(options.http)
        .await
        .with_context(|| format!("cannot listen on {}", options.http))?;
    let serving = tokio::spawn(web::serve(
        listener,
        metrics.clone(),
        indices.clone(),
        stopping.clone(),
    ));

    let mut stop_early = stopping.clone();
    tokio::select! {
        begun = begin(&client, namespace.as_deref()) => begun?,
        _ = stop_early.wait_for(|stop| *stop) => return Ok(()),
    }

    let (triggers, triggered) = mpsc::unbounded_channel();
    let watching = tokio::spawn(watches::owned(
        client.clone(),
        namespace.clone(),
        indices.clone(),
        triggers.clone(),
    ));

    let gateways = Gateways::default();
    let routes = tokio::spawn(gateways.clone().follow(
        client.clone(),
        namespace.clone(),
        indices.clone(),
        triggers.clone(),
    ));
    let outage = Outage::default();
    let election = options.leader_elect.then(|| {
        let lease_namespace = options
            .lease_namespace
            .clone()
            .or_else(pod_namespace)
            .unwrap_or_else(|| client.default_namespace().to_owned());
        let api = Api::namespaced(client.clone(), &lease_namespace);
        let candidate = lease::Candidate::new(
            api,
            options.lease_name.clone(),
            me.clone(),
            leads.clone(),
            outage.clone(),
        );
        tokio::spawn(candidate.run(stopping.clone()))
    });
    if !options.leader_elect {
        leads.send_replace(Tenure::Always);
    }

    let routers = Collector::default();
    let listening = listen(&client, &options, &routers, &triggers, &leading, &metrics);
    let context = Arc::new(Context {
        client: client.clone(),
        defaults: options.defaults(),
        indices: indices.clone(),
        gate: Gate::leading(leading.clone()),
        teller: Teller::new(client.clone(), &me),
        metrics: metrics.clone(),
        outage,
        golden: Golden::new(Reach::Elsewhere, triggers.clone())?,
        asker: Asker::new(triggers),
        memory: Memory::default(),
        routers,
        gateways,
    });
    control(client, &options, context, triggered, leading, stopping).await;

    watching.abort();
    routes.abort();
    drop(listening);
    if let Some(election) = election {
        election.await.context("the election's task broke")?;
    }
    serving.await.context("the web server's task broke")??;
    tracing::info!("ended");
    Ok(())
}

/// Begins to listen to the routers, where there are some; ends when what it gives is dropped.
fn listen(
    client: &Client,
    options: &Run,
    collector: &Collector,
    triggers: &mpsc::UnboundedSender<crate::index::Key>,
    leading: &watch::Receiver<Tenure>,
    metrics: &Metrics,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(service) = options.router.as_deref().and_then(routers::service) {
        let listener = Listener {
            service,
            port: options.router_stats_port,
            token: options.router_stats_token_file.clone(),
            gate: Gate::leading(leading.clone()),
            metrics: metrics.clone(),
            triggers: triggers.clone(),
            collector: collector.clone(),
        };
        tasks.spawn(listener.run(client.clone()));
    }
    tasks
}

/// The controller: what changed is reconciled until `stopping` turns true.
async fn control(
    client: Client,
    options: &Run,
    context: Arc<Context>,
    triggered: mpsc::UnboundedReceiver<crate::index::Key>,
    leading: watch::Receiver<Tenure>,
    mut stopping: watch::Receiver<bool>,
) {
    let api: Api<Watched> = watches::api(client.clone(), options.scope.namespace.as_deref());
    let (reader, writer) = reflector::store();
    let forgetting = context.clone();
    let (listed, all_listed) = watch::channel(false);
    let services = watches::watching(api, watcher::Config::default())
        .modify(|service: &mut Watched| {
            if let Ok(service) = &mut service.0 {
                service.trim();
            }
        })
        .inspect(move |event| match event {
            Ok(watcher::Event::Delete(service)) => {
                forgetting.forget(&reconcile::key(service));
            }
            Ok(watcher::Event::InitDone) => drop(listed.send_replace(true)),
            _ => {}
        })
        .reflect(writer)
        .touched_objects();
    let _granting = grant(&client, options, &reader, all_listed, &context);
    let owned = stream::unfold(triggered, |mut triggered| async move {
        let key = triggered.recv().await?;
        let object = ObjectRef::<Watched>::new(&key.name).within(&key.namespace);
        Some((object, triggered))
    });
    let config = controller::Config::default()
        .concurrency(options.concurrency)
        .debounce(DEBOUNCE);
    let store = reader.clone();
    let mut stop_early = stopping.clone();
    let controller = Controller::for_stream(services, reader)
        .with_config(config)
        .reconcile_on(owned)
        .reconcile_all_on(whenever_ready(context.clone(), leading))
        .graceful_shutdown_on(async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        })
        .run(reconcile::reconcile, on_error, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "the controller goes on");
            }
        });
    // Stopped before its first listing is complete, a Controller waits for that listing for ever.
    let stopped_early = async {
        let _ = stop_early.wait_for(|stop| *stop).await;
        if store.wait_until_ready().now_or_never().is_some() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = controller => {}
        () = stopped_early => {}
    }
}

/// Begins to keep the ReferenceGrants, where there are routers; ends when what it gives is dropped.
fn grant(
    client: &Client,
    options: &Run,
    services: &reflector::Store<Watched>,
    listed: watch::Receiver<bool>,
    context: &Context,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(router) = options.router.as_deref().and_then(routers::service) {
        let granter = Granter {
            client: client.clone(),
            router,
            scope: options.scope.namespace.clone(),
            services: services.clone(),
            listed,
            gate: context.gate.clone(),
        };
        tasks.spawn(granter.run());
    }
    tasks
}

/// An item each time that this replica starts to lead with full caches: look at everything.
fn whenever_ready(
    context: Arc<Context>,
    leading: watch::Receiver<Tenure>,
) -> impl futures::Stream<Item = ()> + Send + 'static {
    stream::unfold(
        (context, leading, false),
        |(context, mut leading, mut before)| async move {
            loop {
                let now = leading.borrow_and_update().holds();
                context.metrics.leads(now);
                if now && !before {
                    while !context.indices.are_ready() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    return Some(((), (context, leading, true)));
                }
                before = now;
                leading.changed().await.ok()?;
            }
        },
    )
}

/// Says which cluster this is, and waits until it knows InferenceServices.
async fn begin(client: &Client, namespace: Option<&str>) -> anyhow::Result<()> {
    let version = client
        .apiserver_version()
        .await
        .context("the API server does not answer")?;
    tracing::info!(
        kubernetes = version.git_version,
        version = env!("CARGO_PKG_VERSION"),
        namespace = namespace.unwrap_or("all"),
        "starting"
    );
    wait_for_definition(client, namespace).await;
    Ok(())
}

/// Without the CustomResourceDefinition every watch fails; say so once, and begin when it is there.
async fn wait_for_definition(client: &Client, namespace: Option<&str>) {
    let api: Api<Watched> = watches::api(client.clone(), namespace);
    let mut told = false;
    while let Err(error) = api.list_metadata(&ListParams::default().limit(1)).await {
        if !told {
            tracing::warn!(%error, "InferenceServices cannot be listed yet: is the CustomResourceDefinition installed?");
            told = true;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn stop_on_signal(stop: watch::Sender<bool>) {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("signals cannot be received: end this process with SIGKILL");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("a signal came: finishing what is under way");
    stop.send_replace(true);
}

/// The pod's name and the process's start: a restarted container is another candidate.
fn identity() -> String {
    let host = std::env::var("POD_NAME")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "ortolan-operator".into());
    format!(
        "{host}_{}_{}",
        std::process::id(),
        jiff::Timestamp::now().as_millisecond()
    )
}

fn pod_namespace() -> Option<String> {
    std::env::var("POD_NAMESPACE")
        .ok()
        .filter(|namespace| !namespace.is_empty())
}
