//! The places that models come from, behind one trait: a new store is one new file here.

pub(crate) mod credentials;
pub(crate) mod file;
pub(crate) mod http;

use std::{
    future::Future,
    path::{Path, PathBuf},
};

use crate::{
    ModelUri, Progress, Request,
    digest::Digest,
    failure::{Failure, Reason},
    limit::Limit,
};

/// What a source brought.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// A file that stays where it is. Not hashed yet.
    InPlace {
        file: PathBuf,
        bytes: u64,
        /// Files that the model names must not lead out of this folder.
        root: Option<PathBuf>,
    },
    /// A directory that stays where it is. Not hashed yet.
    Directory {
        folder: PathBuf,
        root: Option<PathBuf>,
    },
    /// A whole file in the cache, hashed on its way.
    Downloaded {
        file: PathBuf,
        bytes: u64,
        digest: Digest,
    },
}

/// Brings the bytes of a model within reach of the file system.
pub(crate) trait Source: Send + Sync {
    /// Fetches the model. Only `target`, a path that does not exist, may be written.
    fn fetch(
        &self,
        target: &Path,
        progress: &dyn Progress,
    ) -> impl Future<Output = Result<Fetched, Failure>> + Send;
}

/// The source that a request names.
pub(crate) enum Chosen {
    File(file::FileSource),
    Http(Box<http::HttpSource>),
}

impl Chosen {
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let source = match &request.uri {
            ModelUri::File(path) => Self::File(file::FileSource::new(
                path.clone(),
                None,
                request.max_model_bytes,
            )),
            ModelUri::Pvc { claim, path } => {
                let root = request.pvc_root.join(claim);
                let full = root.join(path);
                Self::File(file::FileSource::new(
                    full,
                    Some(root),
                    request.max_model_bytes,
                ))
            }
            ModelUri::Http(url) => {
                let credentials = match &request.credentials_dir {
                    Some(dir) => Some(credentials::read(dir)?),
                    None => None,
                };
                Self::Http(Box::new(http::HttpSource::new(
                    url.clone(),
                    credentials,
                    Limit::new(request.max_model_bytes, request.max_cache_bytes),
                    http::Patience::default(),
                )?))
            }
        };
        if matches!(source, Self::File(_)) && request.credentials_dir.is_some() {
            return Err(Failure::new(
                Reason::InvalidConfig,
                format!(
                    "credentials are given, but {} is read without any; remove \
                     credentialsSecretRef (--credentials-dir)",
                    request.uri
                ),
            ));
        }
        Ok(source)
    }

    /// Whether `fetch` writes a file of its own.
    pub(crate) fn downloads(&self) -> bool {
        matches!(self, Self::Http(_))
    }

    pub(crate) async fn fetch(
        &self,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<Fetched, Failure> {
        match self {
            Self::File(source) => source.fetch(target, progress).await,
            Self::Http(source) => source.fetch(target, progress).await,
        }
    }
}
