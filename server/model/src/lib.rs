//! From a model's URI to verified files on disk.
//!
//! ```text
//!  ModelUri ──► source (file · pvc · http) ──► digest ──► archive? unpack ──► model.yaml, labels
//!                  Fetch                       Verify       Unpack                 │
//!                                                                                  ▼
//!                                                                               Package
//! ```
//!
//! Inputs: a [`Request`]. Output: a [`Package`], or a [`Failure`] whose sentence names what was
//! wrong and what to write instead. Invariants: memory does not grow with the model; nothing is
//! written outside `cache_dir`; a file that was not fetched to its end never counts as the model;
//! a `Package` whose request named a digest has that digest.

use std::{path::PathBuf, sync::Arc, time::Duration};

mod archive;
mod cache;
pub mod config;
pub mod digest;
mod disk;
pub mod failure;
mod layout;
mod limit;
mod obtain;
mod repository;
pub mod settings;
mod sniff;
mod source;
mod task;
mod tree;
mod triton;
pub mod uri;

pub use config::{
    Activation, BytesInput, Channels, Classification, Column, Embedding, ImageInput, Input, Layout,
    Missing, ModelConfig, Output, Overflow, OwnConfig, Pipeline, Pooling, Resize, RowsInput,
    TextInput,
};
pub use digest::Digest;
pub use failure::{Failure, Reason};
pub use obtain::{Found, discover, obtain};
pub use repository::{Folder, Listing, Mark, Repository, Shape};
pub use settings::Settings;
pub use source::http::{Connector, connector};
pub use triton::config_pbtxt;
pub use uri::ModelUri;

/// 20 GiB: larger than any ONNX model that one server is likely to hold.
pub const DEFAULT_MAX_MODEL_BYTES: u64 = 20 * 1024 * 1024 * 1024;

/// What to obtain, and within which bounds. Make it with [`Request::new`] and set what differs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// Where the model lies.
    pub uri: ModelUri,
    /// What it must be; without it whatever the source holds is taken and its digest reported.
    pub expected_digest: Option<Digest>,
    /// Downloads and unpacked archives go here, and only here.
    pub cache_dir: PathBuf,
    /// `pvc://claim/path` is `pvc_root/claim/path`.
    pub pvc_root: PathBuf,
    /// One file for each key of the Secret: `token`, or `username` and `password`.
    pub credentials_dir: Option<PathBuf>,
    /// Bound for the fetched file and, apart, for all that is unpacked from it.
    pub max_model_bytes: u64,
    /// A download and what it unpacks to may take so many bytes of the cache folder's disk; `None`: as many as
    /// are free.
    pub max_cache_bytes: Option<u64>,
    /// A `model.yaml` of the user's own: its sections replace those of the package's. For one model; a
    /// repository is refused.
    pub model_config: Option<OwnConfig>,
    /// What the URI's content is taken for; only [`discover`] asks.
    pub shape: Shape,
    /// A directory is a repository whose content may change: nothing is hashed until it is opened.
    pub is_live: bool,
}

impl Request {
    /// A request with the documented defaults.
    #[must_use]
    pub fn new(uri: ModelUri, cache_dir: PathBuf) -> Self {
        Self {
            uri,
            expected_digest: None,
            cache_dir,
            pvc_root: PathBuf::from("/mnt/pvc"),
            credentials_dir: None,
            max_model_bytes: DEFAULT_MAX_MODEL_BYTES,
            max_cache_bytes: None,
            model_config: None,
            shape: Shape::default(),
            is_live: false,
        }
    }
}

/// The verified model.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    /// The `.onnx` file; external data lies beside it as the model names it.
    pub model_path: PathBuf,
    /// To be kept as long as the model is used.
    pub files: Held,
    /// Of what was fetched: the bare file, the archive, or the directory.
    pub digest: Digest,
    /// Size of what was fetched.
    pub bytes: u64,
    /// `model.yaml` with its labels; the default when there is none.
    pub config: ModelConfig,
    /// How it is run, as `config.pbtxt` and `model.yaml` say.
    pub settings: Settings,
    /// What `config.pbtxt` says that is not acted on, each with its line.
    pub notes: Vec<String>,
    /// How long each phase took, in order: Fetch, Verify, Unpack.
    pub timings: Vec<(Phase, Duration)>,
}

/// Copies that go when nobody holds them any more; nothing where the files stay by themselves.
#[derive(Clone, Debug, Default)]
pub struct Held {
    _work: Option<Arc<cache::Work>>,
}

impl Held {
    pub(crate) fn new(work: Option<cache::Work>) -> Self {
        Self {
            _work: work.map(Arc::new),
        }
    }
}

impl PartialEq for Held {
    /// Where a copy lies says nothing about the model.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The steps from URI to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Bringing the bytes here. The digest of a download is computed on the way.
    Fetch,
    /// Reading what lies here already and comparing digests.
    Verify,
    /// Taking an archive apart and reading `model.yaml`.
    Unpack,
}

impl Phase {
    /// As it stands in `/healthz/startup` and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "Fetch",
            Self::Verify => "Verify",
            Self::Unpack => "Unpack",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Hears how far it is. Called by the task that awaits [`obtain`].
pub trait Progress: Send + Sync {
    /// A phase begins.
    fn phase(&self, phase: Phase);
    /// Bytes of this phase so far, and how many there will be where that is known. A download that
    /// starts over reports a smaller number again.
    fn bytes(&self, done: u64, total: Option<u64>);
}
