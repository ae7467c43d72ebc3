//! How models are got at: the options that the server and its tools share.

use std::path::PathBuf;

use clap::Args;
use ortolan_model::{Failure, ModelUri, Request};

use crate::runtime;

/// Folders, bounds and the library that runs what is found.
#[derive(Args, Clone, Debug)]
pub struct Access {
    /// Scratch space for downloads [default: the user's cache directory].
    #[arg(long, value_name = "DIR", env = "ORTOLAN_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,

    /// Where claims are mounted: pvc://claim/a/b is read from DIR/claim/a/b.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/mnt/pvc",
        env = "ORTOLAN_PVC_ROOT"
    )]
    pub pvc_root: PathBuf,

    /// A directory with one file per key: username and password, or token.
    #[arg(long, value_name = "DIR", env = "ORTOLAN_CREDENTIALS_DIR")]
    pub credentials_dir: Option<PathBuf>,

    /// Refuse a model that is larger, in bytes, fetched or unpacked; the models of a repository
    /// together [default: 20 GiB].
    #[arg(
        long, value_name = "N", default_value_t = ortolan_model::DEFAULT_MAX_MODEL_BYTES,
        hide_default_value = true, env = "ORTOLAN_MAX_MODEL_BYTES"
    )]
    pub max_model_bytes: u64,

    /// Let a download and what it unpacks to take so many bytes of --cache-dir together; a pod's limit of
    /// ephemeral-storage [default: what the disk has free].
    #[arg(long, value_name = "N", env = "ORTOLAN_MAX_CACHE_BYTES")]
    pub max_cache_bytes: Option<u64>,

    /// ONNX Runtime's library [default: searched beside the binary, in ../lib, /opt/ortolan/lib and
    /// the cache].
    #[arg(long, value_name = "PATH", env = "ORTOLAN_ONNXRUNTIME")]
    pub onnxruntime: Option<PathBuf>,
}

impl Access {
    /// A request for what lies at `uri`, of whatever digest.
    pub fn request(&self, uri: ModelUri) -> Result<Request, Failure> {
        let mut request = Request::new(uri, runtime::downloads(self.cache_dir.as_deref())?);
        request.pvc_root.clone_from(&self.pvc_root);
        request.credentials_dir.clone_from(&self.credentials_dir);
        request.max_model_bytes = self.max_model_bytes;
        request.max_cache_bytes = self.max_cache_bytes;
        Ok(request)
    }
}
