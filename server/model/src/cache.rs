//! The folder that downloads and unpacked archives go to.
//!
//! ```text
//! CACHE/models/<hex>/         the files of the model whose fetched file has this digest
//! CACHE/models/<hex>.files    `fetched <bytes>`, then the digest of each file: the sign that it is whole
//! CACHE/work/<n>/             what one process is making; its `lock` is held while that process lives
//! CACHE/work/.lock            held for the moment of making, sweeping and publishing
//! ```
//!
//! Invariants: `models/<hex>` appears by one rename; it is used only after its files have been
//! compared with their digests again; what a dead process left in `work` is removed by the next
//! one, so that a container that restarts does not fill its disk.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::{digest::Digest, disk, failure::Failure, task::Pulse, tree};

/// A cache folder.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// A model found in the cache.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) folder: PathBuf,
    /// The size of the file that was fetched when it came here.
    pub(crate) fetched: u64,
}

/// One process's own folder; removed when dropped.
#[derive(Debug)]
pub(crate) struct Work {
    path: PathBuf,
    _lock: File,
}

impl Work {
    /// Where a download goes until it is whole.
    pub(crate) fn download(&self) -> PathBuf {
        self.path.join("download.part")
    }

    /// Where the files of the model are put together.
    pub(crate) fn stage(&self) -> PathBuf {
        self.path.join("stage")
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Nobody is left to tell; the next process sweeps.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Cache {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    fn models(&self) -> PathBuf {
        self.root.join("models")
    }

    fn files(&self, digest: &Digest) -> PathBuf {
        self.models().join(format!("{}.files", digest.hex()))
    }

    /// Sweeps what dead processes left and makes a folder for this one.
    pub(crate) fn work(&self) -> Result<Work, Failure> {
        let all = self.root.join("work");
        self.work_in(&all)
            .map_err(|e| disk::write_failure(&all, None, &e))
    }

    fn work_in(&self, all: &Path) -> io::Result<Work> {
        let _guard = self.guard()?;
        sweep(all)?;
        for n in 0_u32.. {
            let path = all.join(n.to_string());
            match fs::create_dir(&path) {
                Ok(()) => {
                    let lock = File::create(path.join("lock"))?;
                    lock.lock()?;
                    fs::create_dir(path.join("stage"))?;
                    return Ok(Work { path, _lock: lock });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::other("every folder is taken"))
    }

    fn guard(&self) -> io::Result<File> {
        let all = self.root.join("work");
        fs::create_dir_all(&all)?;
        let file = File::create(all.join(".lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// The model with this digest, if it is here whole. Reads all of its files.
    pub(crate) fn find(&self, digest: &Digest, pulse: &Pulse) -> Option<Hit> {
        let text = fs::read_to_string(self.files(digest)).ok()?;
        let (first, listed) = text.split_once('\n')?;
        let fetched = first.strip_prefix("fetched ")?.parse().ok()?;
        let folder = self.models().join(digest.hex());
        let entries = tree::list(&folder, Some(&folder)).ok()?;
        let found = tree::manifest(&folder, &entries, pulse).ok()?;
        (found == listed).then_some(Hit { folder, fetched })
    }

    /// Moves a finished stage, whose manifest is `listed`, to its place, in exchange for whatever
    /// lies there.
    pub(crate) fn publish(
        &self,
        work: &Work,
        digest: &Digest,
        fetched: u64,
        listed: &str,
    ) -> Result<PathBuf, Failure> {
        let folder = self.models().join(digest.hex());
        self.exchange(
            work,
            &folder,
            digest,
            &format!("fetched {fetched}\n{listed}"),
        )
        .map_err(|e| disk::write_failure(&folder, None, &e))?;
        Ok(folder)
    }

    fn exchange(&self, work: &Work, folder: &Path, digest: &Digest, text: &str) -> io::Result<()> {
        let _guard = self.guard()?;
        fs::create_dir_all(self.models())?;
        let files = self.files(digest);
        if folder.exists() {
            // A process that still has the old files open keeps them.
            let _ = fs::remove_file(&files);
            fs::rename(folder, work.path.join("replaced"))?;
        }
        fs::rename(work.stage(), folder)?;
        let fresh = work.path.join("files");
        fs::write(&fresh, text)?;
        fs::rename(fresh, files)
    }
}

/// Removes the folders in `all` whose process is gone.
fn sweep(all: &Path) -> io::Result<()> {
    for item in fs::read_dir(all)? {
        let path = item?.path();
        if !path.is_dir() {
            continue;
        }
        let alive = match File::open(path.join("lock")) {
            Ok(lock) => matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
            Err(_) => false,
        };
        if !alive {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn publish(cache: &Cache, digest: &Digest) -> PathBuf {
        let work = cache.work().unwrap();
        fs::write(work.stage().join("model.onnx"), b"onnx").unwrap();
        let listed = tree::line(&Digest::of(b"onnx"), "model.onnx");
        cache.publish(&work, digest, 7, &listed).unwrap()
    }

    #[test]
    fn what_was_published_is_found_until_one_byte_of_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, digest, pulse) = (
            Cache::new(dir.path()),
            Digest::of(b"archive"),
            Pulse::default(),
        );
        assert_eq!(cache.find(&digest, &pulse), None);
        let folder = publish(&cache, &digest);
        assert_eq!(
            cache.find(&digest, &pulse),
            Some(Hit {
                folder: folder.clone(),
                fetched: 7
            })
        );
        fs::write(folder.join("model.onnx"), b"onnX").unwrap();
        assert_eq!(cache.find(&digest, &pulse), None);
        publish(&cache, &digest);
        assert!(cache.find(&digest, &pulse).is_some());
        fs::write(folder.join("more"), b"").unwrap();
        assert_eq!(cache.find(&digest, &pulse), None);
    }

    #[test]
    fn a_dead_process_leaves_nothing_and_a_live_one_keeps_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let dead = dir.path().join("work/7");
        fs::create_dir_all(&dead).unwrap();
        fs::write(dead.join("lock"), b"").unwrap();
        fs::write(dead.join("download.part"), b"half").unwrap();
        let live = cache.work().unwrap();
        assert!(!dead.exists());
        let other = cache.work().unwrap();
        assert!(live.stage().exists() && other.stage().exists());
        let path = live.path.clone();
        drop(live);
        assert!(!path.exists());
    }
}
