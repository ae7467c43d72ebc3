//! The table from a file, looked at every [`LOOK`].
//!
//! Invariants: a file that cannot be used changes nothing, and is told of once; a file is read when it has not
//! changed between two looks, so that half of a file that is being written is not taken for a whole one.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;

use crate::{directory::Directory, failure::Failure, table::Table};

/// A look costs one call of the system.
const LOOK: Duration = Duration::from_millis(100);

/// What tells one content of a file from another.
type Seen = Option<(SystemTime, u64, u64)>;

/// A file that is followed.
pub struct Followed {
    path: PathBuf,
    directory: Arc<Directory>,
    /// What the file was when it was last read.
    read: Seen,
}

/// Reads a table.
///
/// # Errors
/// What is wrong with the file, in a sentence.
pub fn read(path: &Path) -> Result<Table, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let table: Table = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    table.check().map_err(|error| error.to_string())?;
    Ok(table)
}

fn look(path: &Path) -> Seen {
    // Through links: a ConfigMap's file is one, and changes by its folder's.
    let about = fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len(), about.ino()))
}

impl Followed {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it cannot be used: the router does not begin without a table.
    pub fn open(path: PathBuf, directory: Arc<Directory>) -> Result<Self, Failure> {
        let seen = look(&path);
        let wrong = |why: String| Failure::State {
            path: path.clone(),
            why,
        };
        let table = read(&path).map_err(wrong)?;
        directory
            .replace(table)
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self {
            path,
            directory,
            read: seen,
        })
    }

    /// For ever.
    pub async fn follow(mut self) {
        let mut before = self.read;
        loop {
            sleep(LOOK).await;
            let now = look(&self.path);
            let is_at_rest = now == before;
            before = now;
            if !is_at_rest || now == self.read {
                continue;
            }
            self.read = now;
            let taken = read(&self.path).and_then(|table| {
                self.directory
                    .replace(table)
                    .map_err(|error| error.to_string())
            });
            match taken {
                Ok(()) => tracing::info!(
                    "the state file {} has changed and is used",
                    self.path.display()
                ),
                Err(why) => tracing::error!(
                    "the state file {} cannot be used, and what it said before holds on: {why}",
                    self.path.display()
                ),
            }
        }
    }
}
