//! `file:` and `pvc:`: nothing is copied; the file or directory is used where it lies.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Fetched, Source};
use crate::{
    Progress,
    disk::{self, size},
    failure::{Failure, Reason},
    tree,
};

/// A path, and for a volume the folder that it must not leave.
#[derive(Debug)]
pub(crate) struct FileSource {
    path: PathBuf,
    root: Option<PathBuf>,
    limit: u64,
}

impl FileSource {
    pub(crate) fn new(path: PathBuf, root: Option<PathBuf>, limit: u64) -> Self {
        Self { path, root, limit }
    }

    fn look(&self) -> Result<Fetched, Failure> {
        if let Some(root) = &self.root {
            self.ensure_mounted(root)?;
        }
        let meta = fs::metadata(&self.path).map_err(|e| disk::failure("read", &self.path, &e))?;
        if let Some(root) = &self.root {
            let real = root
                .canonicalize()
                .map_err(|e| disk::failure("read", root, &e))?;
            tree::confined(&self.path, Some(&real))?;
        }
        if meta.is_dir() {
            return Ok(Fetched::Directory {
                folder: self.path.clone(),
                root: self.root.clone(),
            });
        }
        if !meta.is_file() {
            return Err(Failure::new(
                Reason::InvalidModel,
                format!("{} is neither a file nor a directory", self.path.display()),
            ));
        }
        ensure_size(&self.path, meta.len(), self.limit)?;
        Ok(Fetched::InPlace {
            file: self.path.clone(),
            bytes: meta.len(),
            root: self.root.clone(),
        })
    }

    fn ensure_mounted(&self, root: &Path) -> Result<(), Failure> {
        if root.is_dir() {
            return Ok(());
        }
        Err(Failure::new(
            Reason::ModelNotFound,
            format!(
                "{} is not there: the claim {} is not mounted; outside a cluster set --pvc-root to \
                 a folder that holds one folder for each claim",
                root.display(),
                root.file_name().unwrap_or_default().to_string_lossy()
            ),
        ))
    }
}

/// Refuses what is over the limit, by name.
pub(crate) fn ensure_size(path: &Path, bytes: u64, limit: u64) -> Result<(), Failure> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Failure::new(
        Reason::ModelTooLarge,
        format!(
            "{} has {}, the limit is {} (--max-model-bytes)",
            path.display(),
            size(bytes),
            size(limit)
        ),
    ))
}

impl Source for FileSource {
    async fn fetch(&self, _target: &Path, _progress: &dyn Progress) -> Result<Fetched, Failure> {
        self.look()
    }
}
