//! One version of one model: from its folder into the catalog.
//!
//! Inputs: the files as they were seen. Output: what serves now, or why that stays as it was.
//! Invariants: the model that is put into the catalog is the one that was hashed; all models together
//! stay below the bound, counting a version and its successor once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use ort::environment::Environment;
use ortolan_model::{Digest, Failure, Mark, Reason, Repository};

use super::blocking;
use crate::{
    app::App,
    model::{Identity, Model},
    options::Options,
    settings,
    startup::Startup,
};

/// Loads versions.
pub(super) struct Loader {
    source: Arc<Repository>,
    environment: Environment,
    options: Options,
    /// Bytes of the files of what serves or is being loaded.
    taken: Mutex<BTreeMap<(String, u64), u64>>,
}

impl Loader {
    pub(super) fn new(
        source: Arc<Repository>,
        options: &Options,
        environment: Environment,
    ) -> Self {
        Self {
            source,
            environment,
            options: options.clone(),
            taken: Mutex::default(),
        }
    }

    /// Loads a version and puts it into the catalog, unless what serves has the same content already.
    /// Gives the content's digest.
    pub(super) async fn bring(
        &self,
        app: &Arc<App>,
        name: &str,
        version: u64,
        mark: &Mark,
        serving: Option<Digest>,
    ) -> Result<Digest, Failure> {
        let startup = Arc::new(Startup::default());
        let text = version.to_string();
        app.catalog.expect(name, &text, &startup);
        let brought = self
            .try_to_bring(app, name, version, mark, serving, &startup)
            .await;
        if let Err(failure) = &brought {
            app.catalog.fail(name, &text, &failure.to_string());
        }
        brought
    }

    async fn try_to_bring(
        &self,
        app: &Arc<App>,
        name: &str,
        version: u64,
        mark: &Mark,
        serving: Option<Digest>,
        startup: &Arc<Startup>,
    ) -> Result<Digest, Failure> {
        startup.enter("Verify");
        let (source, folder, seen) = (Arc::clone(&self.source), name.to_owned(), mark.clone());
        let package = blocking(move || source.open(&folder, version, &seen)).await?;
        let digest = package.digest;
        if serving == Some(digest) {
            return Ok(digest);
        }
        for (phase, took) in &package.timings {
            startup.done(phase.as_str(), *took);
        }
        let room = self.take_room(name, version, package.bytes)?;
        let identity = Identity {
            name: name.to_owned(),
            version: version.to_string(),
        };
        let settings = settings::chosen(&self.options, &package.settings, name, &identity.version);
        let meter = app.metrics.meter(name, &identity.version);
        let (environment, progress) = (self.environment.clone(), Arc::clone(startup));
        let opened = blocking(move || {
            Model::open(identity, &settings, &environment, package, &progress, meter)
        });
        let model = opened.await?;
        let (source, folder) = (Arc::clone(&self.source), name.to_owned());
        let now = blocking(move || source.mark(&folder, version)).await?;
        if now != *mark {
            return Err(Failure::new(
                Reason::StoreUnavailable,
                format!(
                    "the files of {name}/{version} changed while they were loaded; they are loaded again once they rest"
                ),
            ));
        }
        room.keep();
        startup.enter("Ready");
        let old = app.catalog.insert(Arc::new(model));
        let seconds = startup.elapsed().as_secs_f64();
        let what = if old.is_some() { "reloaded" } else { "loaded" };
        tracing::info!(model = name, version, %digest, "{what} after {seconds:.3} s");
        Ok(digest)
    }

    /// Sets room aside for a version's files. What the version takes already does not count twice.
    fn take_room(&self, name: &str, version: u64, bytes: u64) -> Result<Room<'_>, Failure> {
        let place = (name.to_owned(), version);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let others = taken.iter().filter(|(other, _)| **other != place);
        let others: u64 = others.map(|(_, bytes)| bytes).sum();
        let limit = self.options.access.max_model_bytes;
        if others.saturating_add(bytes) > limit {
            return Err(Failure::new(
                Reason::ModelTooLarge,
                format!(
                    "{name}/{version} has {bytes} bytes and the models that are loaded have {others}; \
                     together they may have {limit} (--max-model-bytes)"
                ),
            ));
        }
        let before = taken.insert(place.clone(), bytes);
        Ok(Room {
            loader: self,
            place,
            before,
            is_kept: false,
        })
    }

    /// A version was unloaded.
    pub(super) fn free(&self, name: &str, version: u64) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&(name.to_owned(), version));
    }
}

/// Room that is given back unless the load succeeds.
struct Room<'l> {
    loader: &'l Loader,
    place: (String, u64),
    before: Option<u64>,
    is_kept: bool,
}

impl Room<'_> {
    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let mut taken = self
            .loader
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.before {
            Some(bytes) => taken.insert(self.place.clone(), bytes),
            None => taken.remove(&self.place),
        };
    }
}
