//! Which models this server has: name → versions → model.
//!
//! Inputs: a loader's news (`expect`, `insert`, `fail`, `remove`). Output: the model that a request
//! means, or a sentence. Invariants: reading takes no lock; a version that serves goes on serving until
//! it is removed or another model takes its place, whatever a later load of it comes to.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;

use crate::{model::Model, startup::Startup};

/// More names than a sentence should list.
const LISTED: usize = 10;

/// Why there is no model for a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// 404: no model of that name.
    #[error("there is no model {name:?}; this server has {known}")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Known,
    },
    /// 404: the model has no such version.
    #[error("the model {name:?} has no version {version:?}; it has {known}")]
    UnknownVersion {
        /// The model's name.
        name: String,
        /// What was asked for.
        version: String,
        /// What there is.
        known: Known,
    },
    /// 503: it is being loaded.
    #[error("the model {name:?} is not ready yet; phase: {phase}")]
    NotReady {
        /// The model's name.
        name: String,
        /// How far its load is.
        phase: &'static str,
    },
    /// 503: its load has failed.
    #[error("the model {name:?} is not available: {reason}")]
    Failed {
        /// The model's name.
        name: String,
        /// The load's last words.
        reason: String,
    },
}

/// Names in a sentence: `"a", "b" and 7 more`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known(Vec<String>);

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let listed = self.0.iter().take(LISTED).map(String::as_str);
        f.write_str(&crate::signature::show_names(listed))?;
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A version's state.
#[derive(Clone)]
pub enum State {
    /// It is being loaded.
    Loading(Arc<Startup>),
    /// It serves.
    Ready(Arc<Model>),
    /// Its load has failed, with this reason.
    Failed(String),
}

/// Numbers stand above words and are compared as numbers: 2 < 10.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    number: Option<u64>,
    text: String,
}

impl Version {
    fn new(text: &str) -> Self {
        Self {
            number: text.parse().ok(),
            text: text.to_owned(),
        }
    }
}

type Versions = BTreeMap<Version, State>;
type Contents = BTreeMap<String, Versions>;

/// One version of one model, as [`Catalog::list`] shows it.
#[derive(Clone)]
pub struct Listed {
    /// The model's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// How it stands.
    pub state: State,
}

/// All models of the server.
#[derive(Default)]
pub struct Catalog {
    contents: ArcSwap<Contents>,
    open: AtomicBool,
}

impl Catalog {
    /// From now on the server counts as ready: what was to be loaded at its start is loaded.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Whether `open` was called.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// The model that a request means; without a version the highest number that is ready.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, FindError> {
        let contents = self.contents.load();
        let Some(versions) = contents.get(name).filter(|versions| !versions.is_empty()) else {
            return Err(FindError::UnknownModel {
                name: name.to_owned(),
                known: Known(contents.keys().cloned().collect()),
            });
        };
        let mut highest_first = versions.iter().rev();
        let state = match version {
            Some(version) => highest_first
                .find(|(known, _)| known.text == version)
                .map(|(_, state)| state),
            None => highest_first
                .clone()
                .map(|(_, state)| state)
                .find(|state| matches!(state, State::Ready(_)))
                .or_else(|| highest_first.next().map(|(_, state)| state)),
        };
        match state {
            Some(State::Ready(model)) => Ok(Arc::clone(model)),
            Some(State::Loading(startup)) => Err(FindError::NotReady {
                name: name.to_owned(),
                phase: startup.snapshot().phase,
            }),
            Some(State::Failed(reason)) => Err(FindError::Failed {
                name: name.to_owned(),
                reason: reason.clone(),
            }),
            None => Err(FindError::UnknownVersion {
                name: name.to_owned(),
                version: version.unwrap_or_default().to_owned(),
                known: Known(versions.keys().map(|known| known.text.clone()).collect()),
            }),
        }
    }

    /// A version is being loaded. One that serves goes on serving.
    pub fn expect(&self, name: &str, version: &str, startup: &Arc<Startup>) {
        self.unless_ready(name, version, || State::Loading(Arc::clone(startup)));
    }

    /// A load has failed. One that serves goes on serving.
    pub fn fail(&self, name: &str, version: &str, reason: &str) {
        self.unless_ready(name, version, || State::Failed(reason.to_owned()));
    }

    /// A model serves from now on, in the place of another of its name and version, which is given
    /// back: its threads end when the last request that holds it has been answered.
    pub fn insert(&self, model: Arc<Model>) -> Option<Arc<Model>> {
        let (name, version) = (model.name.clone(), Version::new(&model.version));
        let before = self.change(|contents| {
            let versions = contents.entry(name.clone()).or_default();
            versions.insert(version.clone(), State::Ready(Arc::clone(&model)));
        });
        ready(&before, &name, &version)
    }

    /// Takes a version away, whatever its state; gives the model if it served.
    pub fn remove(&self, name: &str, version: &str) -> Option<Arc<Model>> {
        let version = Version::new(version);
        let before = self.change(|contents| {
            if let Some(versions) = contents.get_mut(name) {
                versions.remove(&version);
                if versions.is_empty() {
                    contents.remove(name);
                }
            }
        });
        ready(&before, name, &version)
    }

    /// The models that serve, by name, then version.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<Model>> {
        let contents = self.contents.load();
        let states = contents.values().flat_map(BTreeMap::values);
        states
            .filter_map(|state| match state {
                State::Ready(model) => Some(Arc::clone(model)),
                State::Loading(_) | State::Failed(_) => None,
            })
            .collect()
    }

    /// The versions of a model that serve, lowest first.
    #[must_use]
    pub fn versions(&self, name: &str) -> Vec<String> {
        let contents = self.contents.load();
        let versions = contents.get(name).into_iter().flatten();
        versions
            .filter(|(_, state)| matches!(state, State::Ready(_)))
            .map(|(version, _)| version.text.clone())
            .collect()
    }

    /// Everything, by name, then version.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let contents = self.contents.load();
        let all = contents.iter().flat_map(|(name, versions)| {
            versions.iter().map(|(version, state)| Listed {
                name: name.clone(),
                version: version.text.clone(),
                state: state.clone(),
            })
        });
        all.collect()
    }

    fn unless_ready(&self, name: &str, version: &str, state: impl Fn() -> State) {
        let version = Version::new(version);
        self.change(|contents| {
            let versions = contents.entry(name.to_owned()).or_default();
            if !matches!(versions.get(&version), Some(State::Ready(_))) {
                versions.insert(version.clone(), state());
            }
        });
    }

    /// Changes a copy and puts it in place; gives what was there before.
    fn change(&self, change: impl Fn(&mut Contents)) -> Arc<Contents> {
        self.contents.rcu(|contents| {
            let mut contents = Contents::clone(contents);
            change(&mut contents);
            contents
        })
    }
}

fn ready(contents: &Contents, name: &str, version: &Version) -> Option<Arc<Model>> {
    match contents.get(name)?.get(version)? {
        State::Ready(model) => Some(Arc::clone(model)),
        State::Loading(_) | State::Failed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(catalog: &Catalog, name: &str, version: Option<&str>) -> String {
        match catalog.find(name, version) {
            Ok(_) => "ready".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let catalog = Catalog::default();
        assert_eq!(
            sentence(&catalog, "m", None),
            r#"there is no model "m"; this server has none"#
        );
        let startup = Arc::new(Startup::default());
        for version in ["9", "10", "beta"] {
            catalog.expect("m", version, &startup);
        }
        assert_eq!(
            sentence(&catalog, "m", Some("2")),
            r#"the model "m" has no version "2"; it has "beta", "9", "10""#
        );
        assert_eq!(
            sentence(&catalog, "n", None),
            r#"there is no model "n"; this server has "m""#
        );
        for number in 0..20 {
            catalog.expect(&format!("x{number:02}"), "1", &startup);
        }
        assert!(sentence(&catalog, "n", None).ends_with("\"x08\" and 11 more"));
    }

    #[test]
    fn a_model_that_loads_says_its_phase_and_one_that_failed_its_reason() {
        let catalog = Catalog::default();
        let startup = Arc::new(Startup::default());
        catalog.expect("m", "1", &startup);
        startup.enter("Load");
        assert_eq!(
            sentence(&catalog, "m", None),
            r#"the model "m" is not ready yet; phase: Load"#
        );
        catalog.fail("m", "1", "it is no model");
        assert_eq!(
            sentence(&catalog, "m", Some("1")),
            r#"the model "m" is not available: it is no model"#
        );
        assert!(catalog.remove("m", "1").is_none());
        assert!(catalog.list().is_empty());
    }

    #[test]
    fn the_server_is_ready_once_it_was_opened() {
        let catalog = Catalog::default();
        assert!(!catalog.is_open());
        catalog.open();
        assert!(catalog.is_open());
    }
}
