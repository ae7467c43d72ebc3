//! Keeps the catalog equal to a folder of models: loads, reloads, unloads.
//!
//! ```text
//!  look (names, sizes, times) ─► plan (pure) ─► open + load + warm up ─► catalog.insert ─► the old one
//!        ▲ poll · load · start                                                          goes with its
//!                                                                                       last request
//! ```
//!
//! Inputs: a repository, the options, the clients' load and unload. Output: the catalog, and an index
//! of what is there and why not. Invariants: one change at a time; a model that serves goes on serving
//! until its successor is warm, and for ever if that never happens; a model that cannot be loaded takes
//! nothing away from the others; a repository that cannot be read changes nothing.

mod index;
mod load;
mod manage;
mod options;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use ort::environment::Environment;
use ortolan_model::{Digest, Failure, Folder, Listing, Mark, Reason, Repository};
use tokio::task::spawn_blocking;

use self::plan::{Known, Step};
pub use self::{
    index::{Entry, index},
    manage::{ManageError, load, unload},
    options::{Control, IsRepository, RepositoryOptions},
};
use crate::{app::App, cpu, options::Options, settings};

/// Between two looks that must agree before anything is loaded: a copy that is under way shows.
const SETTLE: Duration = Duration::from_secs(1);

/// What is known of one model.
#[derive(Debug, Default)]
struct Record {
    versions: BTreeMap<u64, Known>,
    /// Why its folder is not read.
    failed: Option<Failure>,
    /// What of its files is not acted on.
    notes: Vec<String>,
}

/// Keeps the catalog equal to a repository.
pub struct Keeper {
    source: Arc<Repository>,
    control: Control,
    is_managed: bool,
    is_strict: bool,
    loader: load::Loader,
    records: Mutex<BTreeMap<String, Record>>,
    /// Whoever changes something holds it.
    turn: tokio::sync::Mutex<()>,
}

impl Keeper {
    /// Nothing is loaded yet.
    #[must_use]
    pub fn new(source: Repository, options: &Options, environment: Environment) -> Self {
        let source = Arc::new(source);
        Self {
            loader: load::Loader::new(Arc::clone(&source), options, environment),
            source,
            control: options.repository.model_control,
            is_managed: options.repository.management_api,
            is_strict: options.repository.strict_readiness,
            records: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Loads what is to be loaded at the start: everything, or in explicit mode the models named.
    ///
    /// # Errors
    /// When the repository cannot be read, a named model is not there, or nothing can make the server
    /// ready any more.
    pub async fn start(&self, app: &Arc<App>, named: &[String]) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        let mut listing = self.look().await?;
        self.tell_ignored(&listing);
        if self.control == Control::Explicit && !named.iter().any(|name| name == "*") {
            let named: BTreeSet<&String> = named.iter().collect();
            if let Some(missing) = named
                .iter()
                .find(|name| !listing.models.contains_key(**name))
            {
                return Err(self.no_such_model(missing, &listing));
            }
            listing.models.retain(|name, _| named.contains(name));
        }
        let wanted = listing.models.len();
        let jobs = listing.models.into_iter().map(|(name, seen)| async move {
            self.follow(app, &name, seen).await;
        });
        // Loading is work for a core; more beside each other only take memory from each other.
        stream::iter(jobs)
            .buffer_unordered(cpu::available().get())
            .collect::<Vec<()>>()
            .await;
        if wanted == 0 && self.control == Control::None {
            return Err(Failure::new(
                Reason::ModelNotFound,
                format!(
                    "the repository {} holds no model: put one into {0}/NAME/1/model.onnx",
                    self.source.root().display()
                ),
            ));
        }
        self.judge_readiness(app)
    }

    /// Calls the server ready once it is: every model serves, or one does and strictness was not asked
    /// for. It stays ready then, for what serves is never given up for what cannot.
    fn judge_readiness(&self, app: &App) -> Result<(), Failure> {
        if app.catalog.is_open() {
            return Ok(());
        }
        let is_ready = match self.first_failure() {
            None => true,
            Some(_) if !self.is_strict && !app.catalog.models().is_empty() => true,
            // Nobody looks again: it would never be ready.
            Some(failure) if self.control == Control::None => return Err(failure),
            Some(_) => false,
        };
        if is_ready {
            app.startup.enter("Ready");
            app.catalog.open();
        }
        Ok(())
    }

    /// The first reason why something that was to be loaded does not serve.
    #[must_use]
    pub fn first_failure(&self) -> Option<Failure> {
        let records = self.records();
        let mut failures = records.iter().flat_map(|(name, record)| {
            let versions = record.versions.values();
            let lost = versions.filter(|known| known.serving.is_none());
            let lost = lost.filter_map(|known| known.failed.as_ref());
            lost.chain(&record.failed).map(move |failure| {
                Failure::new(failure.reason, format!("{name}: {}", failure.message))
            })
        });
        failures.next()
    }

    /// Looks every `interval` and follows what changed. Never ends.
    pub async fn poll(&self, app: &Arc<App>, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            self.poll_once(app).await;
            if let Err(failure) = self.judge_readiness(app) {
                tracing::error!("{failure}");
            }
        }
    }

    async fn poll_once(&self, app: &Arc<App>) {
        let _turn = self.turn.lock().await;
        let (first, second) = match self.look_twice().await {
            Ok(looks) => looks,
            Err(failure) => {
                tracing::warn!(
                    "the repository is not read, all models stay as they are: {failure}"
                );
                return;
            }
        };
        let known: Vec<String> = self.records().keys().cloned().collect();
        if second.models.is_empty() && !known.is_empty() {
            // An unmounted volume looks like this; to empty a server there is its end.
            tracing::warn!("the repository is empty, all models stay as they are");
            return;
        }
        for name in known {
            if !second.models.contains_key(&name) && !first.models.contains_key(&name) {
                self.drop_model(app, &name);
            }
        }
        for (name, seen) in second.models {
            // What moves between two looks is still being written.
            if first.models.get(&name) == Some(&seen) {
                self.follow(app, &name, seen).await;
            }
        }
    }

    async fn look_twice(&self) -> Result<(Listing, Listing), Failure> {
        let first = self.look().await?;
        if self.is_followed(&first) {
            let same = Listing {
                models: first.models.clone(),
                ignored: first.ignored.clone(),
            };
            return Ok((first, same));
        }
        tokio::time::sleep(SETTLE).await;
        Ok((first, self.look().await?))
    }

    /// Nothing in it is new.
    fn is_followed(&self, listing: &Listing) -> bool {
        let records = self.records();
        // What is gone must be gone twice: it may be on its way from one name to another.
        if !records.keys().all(|name| listing.models.contains_key(name)) {
            return false;
        }
        let is_known = |(name, seen): (&String, &Result<Folder, Failure>)| {
            let Some(record) = records.get(name) else {
                return false;
            };
            match seen {
                Ok(folder) => {
                    record.failed.is_none() && plan::loads(folder, &record.versions).is_empty()
                }
                Err(failure) => record.failed.as_ref() == Some(failure),
            }
        };
        listing.models.iter().all(is_known)
    }

    /// Loads a model, or loads it again if its files changed. In explicit mode only.
    pub async fn load(&self, app: &Arc<App>, name: &str) -> Result<(), ManageError> {
        self.allowed()?;
        let _turn = self.turn.lock().await;
        let (source, wanted) = (Arc::clone(&self.source), name.to_owned());
        let seen = blocking(move || source.look_at(&wanted)).await;
        let seen = match seen {
            Ok(Some(folder)) => Ok(folder),
            Ok(None) => return Err(ManageError::Unknown(name.to_owned())),
            Err(failure) => Err(failure),
        };
        self.follow(app, name, seen).await;
        // What is wrong with this model is told below; with others, another load may come.
        let _ = self.judge_readiness(app);
        let records = self.records();
        let failed = records.get(name).and_then(|record| {
            let mut failed = record
                .versions
                .values()
                .filter_map(|known| known.failed.as_ref());
            record.failed.as_ref().or_else(|| failed.next())
        });
        match failed {
            None => Ok(()),
            Some(failure) => Err(ManageError::Failed {
                name: name.to_owned(),
                failure: failure.clone(),
            }),
        }
    }

    /// Takes a model away; requests that it has already are answered. In explicit mode only.
    pub async fn unload(&self, app: &Arc<App>, name: &str) -> Result<(), ManageError> {
        self.allowed()?;
        let _turn = self.turn.lock().await;
        if self.records().contains_key(name) {
            self.drop_model(app, name);
            return Ok(());
        }
        let (source, wanted) = (Arc::clone(&self.source), name.to_owned());
        match blocking(move || source.look_at(&wanted)).await {
            Ok(None) => Err(ManageError::Unknown(name.to_owned())),
            // It is there and not loaded: as it was asked.
            _ => Ok(()),
        }
    }

    fn allowed(&self) -> Result<(), ManageError> {
        match (self.is_managed, self.control) {
            (false, _) => Err(ManageError::Off),
            (true, Control::Explicit) => Ok(()),
            (true, Control::Poll) => Err(ManageError::NotExplicit(
                "what its repository holds, and follows it by itself",
            )),
            (true, Control::None) => Err(ManageError::NotExplicit(
                "what its repository held at the start",
            )),
        }
    }

    /// Brings one model to what its folder says.
    async fn follow(&self, app: &Arc<App>, name: &str, seen: Result<Folder, Failure>) {
        let folder = match seen {
            Ok(folder) => folder,
            Err(failure) => return self.cannot_read(app, name, failure),
        };
        app.catalog.remove(name, index::NO_VERSION);
        let due = {
            let mut records = self.records();
            let record = records.entry(name.to_owned()).or_default();
            record.failed = None;
            tell_notes(name, record, &folder.notes);
            plan::loads(&folder, &record.versions)
        };
        for step in due {
            let Step::Load(version) = step else { continue };
            let mark = folder.versions[&version].clone();
            let serving = self.known(name, version).and_then(|known| known.serving);
            let outcome = self.loader.bring(app, name, version, &mark, serving).await;
            self.remember(name, version, mark, outcome);
        }
        let obsolete = {
            let records = self.records();
            let known = records
                .get(name)
                .map(|record| plan::unloads(&folder, &record.versions));
            known.unwrap_or_default()
        };
        for step in obsolete {
            if let Step::Unload(version) = step {
                self.drop_version(app, name, version);
            }
        }
    }

    fn remember(&self, name: &str, version: u64, mark: Mark, outcome: Result<Digest, Failure>) {
        let mut records = self.records();
        let record = records.entry(name.to_owned()).or_default();
        let before = record.versions.get(&version);
        let serving = before.and_then(|known| known.serving);
        let known = match outcome {
            Ok(digest) => Known {
                mark,
                serving: Some(digest),
                failed: None,
            },
            Err(failure) => {
                // A try that fails as the one before is not told again.
                if before.and_then(|known| known.failed.as_ref()) != Some(&failure) {
                    let so = match serving {
                        Some(_) => "what was loaded before serves on",
                        None => "it is not served",
                    };
                    tracing::error!(model = name, version, "the load failed, {so}: {failure}");
                }
                Known {
                    mark,
                    serving,
                    failed: Some(failure),
                }
            }
        };
        record.versions.insert(version, known);
    }

    fn cannot_read(&self, app: &App, name: &str, failure: Failure) {
        let mut records = self.records();
        let record = records.entry(name.to_owned()).or_default();
        if record.failed.as_ref() != Some(&failure) {
            let serves = record
                .versions
                .values()
                .any(|known| known.serving.is_some());
            let so = if serves {
                "what serves stays"
            } else {
                "it is not served"
            };
            tracing::error!(
                model = name,
                "the model's folder is refused, {so}: {failure}"
            );
        }
        if record.versions.is_empty() {
            app.catalog
                .fail(name, index::NO_VERSION, &failure.to_string());
        }
        record.failed = Some(failure);
    }

    fn drop_model(&self, app: &App, name: &str) {
        let record = self.records().remove(name);
        for version in record
            .into_iter()
            .flat_map(|record| record.versions.into_keys())
        {
            self.drop_version(app, name, version);
        }
        app.catalog.remove(name, index::NO_VERSION);
    }

    fn drop_version(&self, app: &App, name: &str, version: u64) {
        if let Some(record) = self.records().get_mut(name) {
            record.versions.remove(&version);
        }
        let text = version.to_string();
        if app.catalog.remove(name, &text).is_some() {
            tracing::info!(model = name, version, "unloaded");
        }
        app.metrics.forget(name, &text);
        self.loader.free(name, version);
    }

    async fn look(&self) -> Result<Listing, Failure> {
        let source = Arc::clone(&self.source);
        blocking(move || source.look()).await
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, name: &str, version: u64) -> Option<Known> {
        self.records().get(name)?.versions.get(&version).cloned()
    }

    fn no_such_model(&self, name: &str, listing: &Listing) -> Failure {
        let known = listing.models.keys().map(String::as_str).take(10);
        Failure::new(
            Reason::ModelNotFound,
            format!(
                "--load-model {name:?}: the repository {} holds no such model; it holds {}",
                self.source.root().display(),
                crate::signature::show_names(known),
            ),
        )
    }

    fn tell_ignored(&self, listing: &Listing) {
        for folder in &listing.ignored {
            tracing::info!(
                "the folder {folder} holds neither a version nor a config.pbtxt: it is no model's"
            );
        }
    }
}

/// Said once, and again when it changes.
fn tell_notes(name: &str, record: &mut Record, notes: &[String]) {
    if record.notes != notes {
        settings::tell_of_config(name, notes);
        record.notes = notes.to_vec();
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let joined = spawn_blocking(work).await;
    joined.map_err(|error| {
        Failure::new(Reason::Internal, format!("a worker thread failed: {error}"))
    })?
}
