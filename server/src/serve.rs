//! A server's life: listen → fetch → load → warm up → serve → drain.
//!
//! Inputs: options. Output: `Ok` after a drain, else the failure that the process ends with. The
//! port is open from the start: live at once, ready when the model is warm.

use std::{path::Path, sync::Arc};

use ort::environment::Environment;
use ortolan_model::{Digest, Failure, Found, ModelUri, Package, Reason, Request, Shape};
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    admission::Admission,
    announce,
    app::App,
    cache::ResponseCache,
    cpu,
    model::{Identity, Model},
    observe::Observer,
    options::Options,
    pipeline::workers::Workers,
    ports::Ports,
    repository::{Control, IsRepository, Keeper},
    runtime, settings,
    signals::{Signal, Signals},
};

/// After runs were told to stop, their clients still get an answer.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(2);

/// Serves until a signal, then drains.
pub async fn serve(options: Options) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let uri: ModelUri = options.uri.parse()?;
    let name = model_name(&options, &uri)?;
    let ports = Ports::bind(&options).await?;
    let addresses = ports.addresses()?;
    let mut app = App::new(options.max_body_bytes);
    app.cache = (options.response_cache > 0).then(|| ResponseCache::new(options.response_cache));
    app.admission = Admission::new(options.max_concurrency);
    app.pipelines = Workers::new(cpu::available(), options.queue.get());
    app.observer = Observer::new(&options.observe, addresses.scheme())?;
    app.metrics.as_triton = options.observe.triton_metrics;
    let app = Arc::new(app);
    let identity = Identity {
        name,
        version: options.model_version.clone(),
    };
    if options.repository.shape() != Shape::Repository {
        app.catalog
            .expect(&identity.name, &identity.version, &app.startup);
    }
    let connections = ports.serve(&app)?;
    let (scheme, address) = (addresses.scheme(), addresses.http);
    match addresses.grpc {
        Some(grpc) => {
            tracing::info!("listening on {scheme}://{address}, gRPC on {grpc}, loading {uri}")
        }
        None => tracing::info!("listening on {scheme}://{address}, loading {uri}"),
    }
    tokio::select! {
        loaded = load(&options, identity, uri, &app) => loaded?,
        signal = signals.next() => {
            tracing::info!("{signal} before the model was ready: nothing to drain");
            return Ok(());
        }
    }
    announce::ready(&options, &addresses, &app);
    let signal = signals.next().await;
    drain(&options, &app, signal, &mut signals, connections).await;
    let observer = app.observer.clone();
    // Only a panic ends it early, and then there is nothing more to send.
    let _ = spawn_blocking(move || observer.finish()).await;
    Ok(())
}

fn model_name(options: &Options, uri: &ModelUri) -> Result<String, Failure> {
    let name = options.name.clone().unwrap_or_else(|| uri.default_name());
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    for (what, text) in [
        ("model's name", &name),
        ("model's version", &options.model_version),
    ] {
        let fits = !text.is_empty() && text.len() <= 253;
        if !fits
            || (what == "model's name" && !text.chars().all(is_allowed))
            || text.contains(['/', ':'])
        {
            return Err(Failure::new(
                Reason::InvalidConfig,
                format!(
                    "the {what} {text:?} does not fit into a URL; write 1 to 253 of a-z 0-9 . _ -"
                ),
            ));
        }
    }
    Ok(name)
}

/// From the URI to warm models.
async fn load(
    options: &Options,
    identity: Identity,
    uri: ModelUri,
    app: &Arc<App>,
) -> Result<(), Failure> {
    let request = request(options, uri)?;
    // The library is mapped while the model is fetched.
    let library = options.access.onnxruntime.clone();
    let started = spawn_blocking(move || runtime::start(library.as_deref()));
    let found = ortolan_model::discover(&request, &*app.startup).await?;
    let (environment, library) = started.await.map_err(|error| stopped(&error))??;
    tracing::info!("ONNX Runtime from {}", library.display());
    match found {
        Found::Model(package) => load_one(options, identity, *package, environment, app).await,
        Found::Repository {
            repository,
            digest,
            timings,
            is_in_place,
        } => {
            app.catalog.remove(&identity.name, &identity.version);
            if options.is_given("name") || options.is_given("model_version") {
                tracing::info!(
                    "the models of a repository are called as their folders are: --name and --model-version \
                     are not used"
                );
            }
            for (phase, took) in timings {
                app.startup.done(phase.as_str(), took);
            }
            if let Some(digest) = digest {
                // Nothing else sets it.
                let _ = app.digest.set(digest);
            }
            app.startup.enter("Load");
            let control = options.repository.model_control;
            if control == Control::Poll && !is_in_place {
                return Err(cannot_poll(&request.uri));
            }
            let keeper = app.keep(Keeper::new(repository, options, environment));
            keeper.start(app, &options.repository.load_model).await?;
            if control == Control::Poll {
                let (app, interval) = (Arc::clone(app), options.repository.poll_interval);
                tokio::spawn(async move {
                    if let Some(keeper) = app.repository() {
                        keeper.poll(&app, interval).await;
                    }
                });
            }
            Ok(())
        }
    }
}

fn request(options: &Options, uri: ModelUri) -> Result<Request, Failure> {
    let mut request = options.access.request(uri)?;
    request.expected_digest = expected_digest(options)?;
    request.model_config = options.own_config();
    request.shape = options.repository.shape();
    request.is_live = options.repository.is_live();
    if options.repository.model_control == Control::Poll && request.expected_digest.is_some() {
        return Err(Failure::new(
            Reason::InvalidConfig,
            "--digest names a content that never changes, and --model-control poll follows changes; \
             leave one of them out",
        ));
    }
    if options.repository.repository == IsRepository::Never && request.is_live {
        return Err(Failure::new(
            Reason::InvalidConfig,
            "--model-control poll and explicit need a repository, and --repository never says that \
             MODEL_URI is none",
        ));
    }
    Ok(request)
}

fn cannot_poll(uri: &ModelUri) -> Failure {
    Failure::new(
        Reason::InvalidConfig,
        format!(
            "--model-control poll follows the changes of a directory, and {uri} is an archive; unpack it \
             into a directory or a volume, or leave --model-control out"
        ),
    )
}

/// From a package to a warm model.
async fn load_one(
    options: &Options,
    identity: Identity,
    package: Package,
    environment: Environment,
    app: &Arc<App>,
) -> Result<(), Failure> {
    for (phase, took) in &package.timings {
        app.startup.done(phase.as_str(), *took);
    }
    settings::tell_of_config(&identity.name, &package.notes);
    let Identity { name, version } = &identity;
    let settings = settings::chosen(options, &package.settings, name, version);
    let startup = Arc::clone(&app.startup);
    let meter = app.metrics.meter(&identity.name, &identity.version);
    let opened = spawn_blocking(move || {
        Model::open(identity, &settings, &environment, package, &startup, meter)
    });
    let model = opened.await.map_err(|error| stopped(&error))??;
    app.startup.enter("Ready");
    app.catalog.insert(Arc::new(model));
    app.catalog.open();
    Ok(())
}

fn stopped(error: &tokio::task::JoinError) -> Failure {
    Failure::new(Reason::Internal, format!("loading stopped: {error}"))
}

/// From `--digest` and from the file that may hold a recorded one; both must agree.
fn expected_digest(options: &Options) -> Result<Option<Digest>, Failure> {
    let given = options
        .digest
        .as_deref()
        .map(str::parse::<Digest>)
        .transpose()?;
    let recorded = options
        .recorded_digest_file
        .as_deref()
        .map(recorded_digest)
        .transpose()?
        .flatten();
    match (given, recorded) {
        (Some(given), Some(recorded)) if given != recorded => Err(Failure::new(
            Reason::DigestMismatch,
            format!("--digest says {given}, and the recorded digest is {recorded}"),
        )),
        (given, recorded) => Ok(given.or(recorded)),
    }
}

fn recorded_digest(file: &Path) -> Result<Option<Digest>, Failure> {
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => text.trim().parse().map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(
            Reason::InvalidConfig,
            format!(
                "cannot read the recorded digest {}: {error}",
                file.display()
            ),
        )),
    }
}

/// Serve on, close the port, finish what is queued, stop what still runs.
async fn drain(
    options: &Options,
    app: &App,
    signal: Signal,
    signals: &mut Signals,
    mut connections: tokio::task::JoinHandle<()>,
) {
    app.drain();
    // At a terminal nothing routes to us any more: there is nobody to wait for.
    if signal == Signal::Terminate {
        tracing::info!(
            "{signal}: serving on for {:?} while clients move away",
            options.drain_delay
        );
        tokio::select! {
            () = tokio::time::sleep(options.drain_delay) => {}
            () = signals.interrupt() => {}
        }
    }
    tracing::info!(
        "the port is closed; finishing what is queued, at most {:?}",
        options.grace
    );
    app.close();
    let finished = tokio::select! {
        finished = timeout(options.grace, &mut connections) => finished.is_ok(),
        () = signals.interrupt() => false,
    };
    if !finished {
        tracing::warn!("stopping what still runs");
        for model in app.catalog.models() {
            model.engine.terminate();
        }
        let _ = timeout(LAST_WORDS, connections).await;
    }
    tracing::info!("drained");
}
