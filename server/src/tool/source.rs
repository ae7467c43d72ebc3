//! Where a tool's model comes from: the same places, options and limits as the server's.

use ortolan_model::{Failure, Package, Reason};

use crate::{access::Access, startup::Startup};

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

    #[command(flatten, next_help_heading = "Where the model comes from")]
    #[allow(missing_docs)]
    pub access: Access,
}

impl Source {
    /// The model's files, verified. Blocking.
    pub fn obtain(&self) -> Result<Package, Failure> {
        let mut request = self.access.request(self.uri.parse()?)?;
        request.expected_digest = self.digest.as_deref().map(str::parse).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                Failure::new(Reason::Internal, format!("cannot start threads: {error}"))
            })?;
        runtime.block_on(ortolan_model::obtain(&request, &Startup::default()))
    }
}
