//! What was seen last, on disk: a router that starts while the API server is away serves from it.
//!
//! The file is the table as JSON, replaced as a whole; one that is missing or cannot be read is none.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use crate::{directory::Directory, table::Table};

/// Pods come and go in crowds; the disk hears of it once a second.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// The last state, if there is one.
#[must_use]
pub fn read(path: &Path) -> Option<Table> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("the last state {} cannot be read: {error}", path.display());
            return None;
        }
    };
    let table: Result<Table, _> = serde_json::from_slice(&text);
    table
        .inspect_err(|error| {
            tracing::warn!("the last state {} is no table: {error}", path.display())
        })
        .ok()
}

/// Writes beside the file and puts it in its place.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, table: &Table) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    serde_json::to_writer(io::BufWriter::new(&mut file), table)?;
    file.flush()?;
    file.as_file().sync_data()?;
    file.persist(path)?;
    Ok(())
}

/// Writes the table whenever it has changed, for ever.
pub async fn keep(path: PathBuf, directory: Arc<Directory>, mut changed: watch::Receiver<u64>) {
    while changed.changed().await.is_ok() {
        if let Some(table) = directory.table() {
            let path = path.clone();
            let written =
                spawn_blocking(move || write(&path, &table).map_err(|error| (path, error))).await;
            if let Ok(Err((path, error))) = written {
                tracing::warn!(
                    "the last state {} cannot be written: {error}",
                    path.display()
                );
            }
        }
        sleep(AT_MOST_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_nonsense_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.json");
        assert_eq!(read(&path), None);
        let text = "services: {demo/cats: {revisions: [{name: cats-1, weight: 100, endpoints: ['10.0.0.1:8080']}]}}";
        let table: Table = serde_saphyr::from_str(text).unwrap();
        for _ in 0..2 {
            write(&path, &table).unwrap();
            assert_eq!(read(&path).as_ref(), Some(&table));
        }
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        fs::write(&path, "{\"services\": {\"demo/ca").unwrap();
        assert_eq!(read(&path), None);
    }
}
