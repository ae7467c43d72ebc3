//! Where a tool's model comes from: the same places, options and limits as the server's.

use std::path::PathBuf;

use ortolan_model::{Failure, Package, Reason, Request};

use crate::{runtime, startup::Startup};

/// The model, and how to get it.
#[derive(Clone, Debug, clap::Args)]
pub struct Source {
    /// The model: a path, file://, http(s):// or pvc://CLAIM/PATH; a bare .onnx or an archive.
    #[arg(value_name = "MODEL_URI")]
    pub uri: String,

    /// Refuse a file with another digest, sha256:HEX.
    #[arg(
        long,
        value_name = "DIGEST",
        help_heading = "Where the model comes from"
    )]
    pub digest: Option<String>,

    /// Scratch space for downloads [default: the user's cache directory].
    #[arg(
        long,
        value_name = "DIR",
        env = "ORTOLAN_CACHE_DIR",
        help_heading = "Where the model comes from"
    )]
    pub cache_dir: Option<PathBuf>,

    /// Where claims are mounted: pvc://claim/a/b is read from DIR/claim/a/b.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/mnt/pvc",
        env = "ORTOLAN_PVC_ROOT",
        help_heading = "Where the model comes from"
    )]
    pub pvc_root: PathBuf,

    /// A directory with one file per key: username and password, or token.
    #[arg(
        long,
        value_name = "DIR",
        env = "ORTOLAN_CREDENTIALS_DIR",
        help_heading = "Where the model comes from"
    )]
    pub credentials_dir: Option<PathBuf>,

    /// Refuse a model that is larger, in bytes, fetched or unpacked [default: 20 GiB].
    #[arg(
        long, value_name = "N", default_value_t = ortolan_model::DEFAULT_MAX_MODEL_BYTES,
        hide_default_value = true, env = "ORTOLAN_MAX_MODEL_BYTES",
        help_heading = "Where the model comes from"
    )]
    pub max_model_bytes: u64,

    /// ONNX Runtime's library [default: searched as the server does].
    #[arg(
        long,
        value_name = "PATH",
        env = "ORTOLAN_ONNXRUNTIME",
        help_heading = "Where the model comes from"
    )]
    pub onnxruntime: Option<PathBuf>,
}

impl Source {
    /// The model's files, verified. Blocking.
    pub fn obtain(&self) -> Result<Package, Failure> {
        let cache = runtime::downloads(self.cache_dir.as_deref())?;
        let mut request = Request::new(self.uri.parse()?, cache);
        request.expected_digest = self.digest.as_deref().map(str::parse).transpose()?;
        request.pvc_root.clone_from(&self.pvc_root);
        request.credentials_dir.clone_from(&self.credentials_dir);
        request.max_model_bytes = self.max_model_bytes;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                Failure::new(Reason::Internal, format!("cannot start threads: {error}"))
            })?;
        runtime.block_on(ortolan_model::obtain(&request, &Startup::default()))
    }
}
