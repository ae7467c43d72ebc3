//! Several models in one place, laid out as Triton lays them out.
//!
//! ```text
//! ROOT/densenet/config.pbtxt       optional
//! ROOT/densenet/model.yaml         optional, also inside a version's folder
//! ROOT/densenet/labels.txt
//! ROOT/densenet/1/model.onnx       (+ external data)
//! ROOT/densenet/12/model.onnx
//! ```
//!
//! Inputs: a folder that may change while it is read. Outputs: what it holds now ([`Repository::look`],
//! which reads no model), and one version as a [`Package`] ([`Repository::open`], which reads and
//! hashes it). Invariants: one folder that cannot be read says so and hides no other; a version whose
//! files changed while they were hashed is never given out; what is unchanged is hashed once; a file
//! that stays mapped while its model serves is a copy that nobody else writes.

mod shape;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};

pub(crate) use self::shape::root_of;
use crate::{
    Held, ModelConfig, Package, Phase,
    cache::{Cache, Work},
    config,
    digest::{self, Digest},
    disk,
    failure::{Failure, Reason},
    layout,
    source::file::ensure_size,
    tree::{self, Entry, Stamp},
    triton,
};

/// What a URI's content is taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// A repository if it looks like one (see [`Repository`]), else one model.
    #[default]
    Auto,
    /// One model.
    Single,
    /// A repository.
    Repository,
}

/// A folder of models.
#[derive(Debug)]
pub struct Repository {
    root: PathBuf,
    /// Links must not lead out of here.
    confine: Option<PathBuf>,
    /// Bound for one version's files.
    limit: u64,
    /// The files may change: those that stay mapped are copied into this cache.
    copies: Option<Cache>,
    /// Files that were hashed, while they have this stamp.
    hashed: Mutex<HashMap<PathBuf, (Stamp, Digest)>>,
}

/// What a repository holds at one moment.
#[derive(Debug, Default)]
pub struct Listing {
    /// By name: the versions that its policy chooses, or why there are none.
    pub models: BTreeMap<String, Result<Folder, Failure>>,
    /// Folders that hold neither a version nor a `config.pbtxt`.
    pub ignored: Vec<String>,
}

/// One model's folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    /// The versions to serve, each with its mark.
    pub versions: BTreeMap<u64, Mark>,
    /// What of `config.pbtxt` is not acted on.
    pub notes: Vec<String>,
}

/// What the file system says of a version's files. Equal marks are equal files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(Vec<Entry>);

impl Repository {
    /// The folder as it lies there; nothing is read yet. `confine`: links must not lead out of it.
    #[must_use]
    pub(crate) fn new(root: PathBuf, confine: Option<PathBuf>, limit: u64) -> Self {
        Self {
            root,
            confine,
            limit,
            copies: None,
            hashed: Mutex::default(),
        }
    }

    /// Its files may change while their models serve.
    #[must_use]
    pub(crate) fn live(mut self, copies: Cache) -> Self {
        self.copies = Some(copies);
        self
    }

    /// Where it lies.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it holds now. Blocking; reads names, sizes, times and each `config.pbtxt`.
    ///
    /// # Errors
    /// Only when the folder itself cannot be read.
    pub fn look(&self) -> Result<Listing, Failure> {
        let broken = |e: io::Error| disk::failure("read", &self.root, &e);
        let mut listing = Listing::default();
        for item in fs::read_dir(&self.root).map_err(broken)? {
            let path = item.map_err(broken)?.path();
            let Some(name) = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
            else {
                continue;
            };
            if name.starts_with('.') || name == "__MACOSX" || !path.is_dir() {
                continue;
            }
            match self.folder(&name) {
                Ok(Some(folder)) => listing.models.insert(name, Ok(folder)),
                Ok(None) => {
                    listing.ignored.push(name);
                    None
                }
                Err(failure) => listing.models.insert(name, Err(failure)),
            };
        }
        self.forget_what_is_gone();
        Ok(listing)
    }

    /// One model's folder. `None`: there is no such folder, or it is no model's.
    pub fn look_at(&self, name: &str) -> Result<Option<Folder>, Failure> {
        // The name comes from a client: it must stay one folder of the root.
        if !is_model_name(name) || !self.root.join(name).is_dir() {
            return Ok(None);
        }
        self.folder(name)
    }

    fn folder(&self, name: &str) -> Result<Option<Folder>, Failure> {
        let files = tree::list(&self.root.join(name), self.confine.as_deref())?;
        let versions: BTreeSet<u64> = files.iter().filter_map(version_of).collect();
        if versions.is_empty() && !files.iter().any(|file| file.path == triton::FILE) {
            return Ok(None);
        }
        if !is_model_name(name) {
            return Err(Failure::new(
                Reason::InvalidConfig,
                format!(
                    "the folder {name:?} does not name a model that fits into a URL; rename it to 1 to \
                     253 of A-Z a-z 0-9 . _ -"
                ),
            ));
        }
        let config = self.config(name, &files)?;
        let chosen = config.versions.choose(&versions);
        if chosen.is_empty() {
            return Err(no_version(name, &versions));
        }
        let versions = chosen
            .into_iter()
            .map(|version| (version, mark(&files, version)));
        Ok(Some(Folder {
            versions: versions.collect(),
            notes: config.notes,
        }))
    }

    /// The model's `config.pbtxt`; the default without one.
    fn config(&self, name: &str, files: &[Entry]) -> Result<triton::Config, Failure> {
        if !files.iter().any(|file| file.path == triton::FILE) {
            return Ok(triton::Config::default());
        }
        let file = self.root.join(name).join(triton::FILE);
        let config = triton::load(&file, self.confine.as_deref())?;
        match &config.name {
            Some(other) if other != name => Err(Failure::new(
                Reason::InvalidConfig,
                format!(
                    "{name}/{}: name is {other:?}, and the folder is called {name:?}; make them the same",
                    triton::FILE
                ),
            )),
            _ => Ok(config),
        }
    }

    /// What the file system says of one version's files now. Blocking.
    pub fn mark(&self, name: &str, version: u64) -> Result<Mark, Failure> {
        let files = tree::list(&self.root.join(name), self.confine.as_deref())?;
        Ok(mark(&files, version))
    }

    /// Reads and hashes one version, whose files were seen with this mark. Blocking.
    ///
    /// # Errors
    /// Why it cannot be served. [`Reason::StoreUnavailable`] when its files changed meanwhile: the next
    /// look will find them again.
    pub fn open(&self, name: &str, version: u64, seen: &Mark) -> Result<Package, Failure> {
        let start = Instant::now();
        let folder = self.root.join(name);
        let files = tree::list(&folder, self.confine.as_deref())?;
        let bytes = seen.0.iter().map(|file| file.bytes).sum();
        ensure_size(&folder.join(version.to_string()), bytes, self.limit)?;
        let digest = self.digest(&folder, seen)?;
        let triton = self.config(name, &files)?;
        let mut model_path = folder.join(model_file(
            name,
            version,
            triton.model_filename.as_deref(),
            seen,
        )?);
        let copy = self.copy(&folder, version, seen)?;
        if let Some(work) = &copy {
            let inside = model_path.strip_prefix(&folder).unwrap_or(&model_path);
            model_path = work.stage().join(inside);
        }
        let config = self.pipeline(&folder, version, seen)?;
        if self.mark(name, version)? != *seen {
            return Err(Failure::new(
                Reason::StoreUnavailable,
                format!(
                    "the files of {name}/{version} change while they are read; they are read again once they rest"
                ),
            ));
        }
        Ok(Package {
            model_path,
            files: Held::new(copy),
            digest,
            bytes,
            settings: triton.settings.overlaid(&config.batching),
            config,
            notes: triton.notes,
            timings: vec![(Phase::Verify, start.elapsed())],
        })
    }

    /// ONNX Runtime reads a model's own file and closes it. What lies beside it stays mapped: cut off, it
    /// would end the process, and written over, it would answer with other weights. So where files may
    /// change, a version of several files is copied (shared blocks where the file system can).
    fn copy(&self, folder: &Path, version: u64, seen: &Mark) -> Result<Option<Work>, Failure> {
        let inside = format!("{version}/");
        let own: Vec<&Entry> = seen
            .0
            .iter()
            .filter(|file| file.path.starts_with(&inside))
            .collect();
        let (Some(cache), true) = (&self.copies, own.len() > 1) else {
            return Ok(None);
        };
        let work = cache.work()?;
        let bytes = own.iter().map(|file| file.bytes).sum();
        disk::ensure_room(&work.stage(), bytes)?;
        for file in own {
            let (from, to) = (folder.join(&file.path), work.stage().join(&file.path));
            let made = to.parent().map_or(Ok(()), fs::create_dir_all);
            made.and_then(|()| fs::copy(&from, &to))
                .map_err(|e| match e.kind() {
                    io::ErrorKind::NotFound => disk::failure("read", &from, &e),
                    _ => disk::write_failure(&to, Some(bytes), &e),
                })?;
        }
        Ok(Some(work))
    }

    /// As of a directory (see [`tree`]), over the files of the version and those beside it.
    fn digest(&self, folder: &Path, mark: &Mark) -> Result<Digest, Failure> {
        let mut text = String::new();
        for file in &mark.0 {
            let path = folder.join(&file.path);
            let known = self.known(&path, file.stamp);
            let digest = match known {
                Some(digest) => digest,
                None => {
                    let hashed = digest::of_file(&path, |_| Ok(()));
                    let (digest, _) = hashed.map_err(|e| disk::failure("read", &path, &e))?;
                    let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
                    hashed.insert(path, (file.stamp, digest));
                    digest
                }
            };
            text.push_str(&tree::line(&digest, &file.path));
        }
        Ok(Digest::of(text.as_bytes()))
    }

    fn known(&self, path: &Path, stamp: Stamp) -> Option<Digest> {
        let hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, digest) = hashed.get(path)?;
        (*of == stamp).then_some(*digest)
    }

    fn forget_what_is_gone(&self) {
        let mut hashed = self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        hashed.retain(|path, _| path.exists());
    }

    /// The version's own `model.yaml`, else the model's.
    fn pipeline(&self, folder: &Path, version: u64, mark: &Mark) -> Result<ModelConfig, Failure> {
        for place in [folder.join(version.to_string()), folder.to_path_buf()] {
            let file = place.join(config::FILE);
            if mark.0.iter().any(|entry| folder.join(&entry.path) == file) {
                return config::load(Some(&file), None, &place, self.confine.as_deref());
            }
            let other = place.join("model.yml");
            if mark.0.iter().any(|entry| folder.join(&entry.path) == other) {
                return Err(layout::misnamed(&other));
            }
        }
        Ok(ModelConfig::default())
    }
}

/// Where the version's model is, relative to the model's folder.
fn model_file(
    name: &str,
    version: u64,
    chosen: Option<&str>,
    mark: &Mark,
) -> Result<PathBuf, Failure> {
    let inside = format!("{version}/");
    let files: Vec<&str> = mark.0.iter().map(|file| file.path.as_str()).collect();
    let wanted = format!("{inside}{}", chosen.unwrap_or("model.onnx"));
    // A model of several files may be a folder of that name.
    let nested = format!("{wanted}/model.onnx");
    if let Some(found) = files
        .iter()
        .find(|file| **file == wanted || **file == nested)
    {
        return Ok(PathBuf::from(found));
    }
    if chosen.is_some() {
        return Err(Failure::new(
            Reason::ModelNotFound,
            format!(
                "{name}/{wanted} is not there, although default_model_filename in {name}/{} names it",
                triton::FILE
            ),
        ));
    }
    let own: Vec<Entry> = mark
        .0
        .iter()
        .filter(|file| file.path.starts_with(&inside))
        .cloned()
        .collect();
    let what = format!("the folder {name}/{version}");
    layout::locate(&what, Reason::ModelNotFound, &own).map(|parts| parts.model)
}

/// The files that a version is made of: its own, and those beside the versions.
fn mark(files: &[Entry], version: u64) -> Mark {
    let is_part = |file: &&Entry| version_of(file).is_none_or(|of| of == version);
    Mark(files.iter().filter(is_part).cloned().collect())
}

/// `12/model.onnx` is of version 12. A version is a number without a sign or a leading 0.
fn version_of(file: &Entry) -> Option<u64> {
    version_number(file.path.split_once('/')?.0)
}

fn version_number(text: &str) -> Option<u64> {
    let is_plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?
}

fn is_model_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=253).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('.')
}

fn no_version(name: &str, there: &BTreeSet<u64>) -> Failure {
    let message = if there.is_empty() {
        format!(
            "the model's folder {name} holds no version: put the model into {name}/1/model.onnx"
        )
    } else {
        let there: Vec<String> = there.iter().map(u64::to_string).collect();
        format!(
            "version_policy in {name}/{} chooses none of the versions that are there: {}",
            triton::FILE,
            there.join(", ")
        )
    };
    Failure::new(Reason::ModelNotFound, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
