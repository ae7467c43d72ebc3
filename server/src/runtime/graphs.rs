//! Optimised graphs on disk: what ONNX Runtime made of a model once need not be made at the next start.
//!
//! Decides under which name a graph is kept, whether a file with that name is whole, and which files leave when there is no room.
//! Inputs: what a graph depends on ([`Key`]), a folder, a bound. Outputs: a file to load instead of the model, or a place to write
//! one to. Invariants: a file appears under its name whole or not at all (written beside, then renamed); its name holds the
//! BLAKE3 digest of its content, and what does not match is removed; several processes may share a folder; nothing here is
//! needed: whatever fails, the model itself is loaded.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use ortolan_model::{Digest, settings::Optimization};

/// Of the format of names and of what is in the key; another number leaves older files to the pruning.
const FORMAT: &str = "ortolan optimised graph 1";
/// Hexadecimal digits of a key and of a content's digest in a name.
const DIGITS: usize = 32;
/// A process that died while it wrote leaves its file behind; none writes for so long.
const ABANDONED: Duration = Duration::from_secs(3600);
/// Protobuf cannot write 2 GiB or more into one file; ONNX Runtime would try at every start.
pub const LARGEST: u64 = 1_900_000_000;

/// The folder of kept graphs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graphs {
    folder: PathBuf,
    bound: u64,
}

/// Names a graph: another model, another ONNX Runtime or another processor has another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Of the model's digest, how far it is optimised, for which provider, by which build of ONNX Runtime and for which processor.
    /// The last is there because layouts and fusions are chosen by the processor's vector instructions.
    #[must_use]
    pub fn new(
        digest: &Digest,
        optimization: Optimization,
        provider: &str,
        runtime: &str,
        processor: &str,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        let level = format!("{optimization:?}");
        for part in [
            FORMAT,
            &digest.hex(),
            &level,
            provider,
            runtime,
            std::env::consts::ARCH,
            processor,
        ] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(digits(&hasher.finalize()))
    }
}

fn digits(hash: &blake3::Hash) -> String {
    hash.to_hex()[..DIGITS].to_owned()
}

/// What the kernel says of the first processor: its model and its vector instructions. `None` where it says nothing.
#[must_use]
pub fn processor() -> Option<String> {
    let said = fs::read_to_string("/proc/cpuinfo").ok()?;
    of_processor(&said)
}

fn of_processor(cpuinfo: &str) -> Option<String> {
    const TELLING: [&str; 8] = [
        "vendor_id",
        "cpu family",
        "model name",
        "flags",
        "Features",
        "CPU implementer",
        "CPU part",
        "CPU variant",
    ];
    let first = cpuinfo.lines().take_while(|line| !line.is_empty());
    let told: Vec<&str> = first
        .filter(|line| {
            let field = line.split(':').next().unwrap_or_default().trim();
            TELLING.contains(&field)
        })
        .collect();
    let has_instructions = told
        .iter()
        .any(|line| line.starts_with("flags") || line.starts_with("Features"));
    has_instructions.then(|| told.join("\n"))
}

impl Graphs {
    /// Up to `bound` bytes in `graphs` below `cache`.
    #[must_use]
    pub fn new(cache: &Path, bound: u64) -> Self {
        Self {
            folder: cache.join("graphs"),
            bound,
        }
    }

    /// The graph of that key, if one is there and whole.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<PathBuf> {
        for path in self.of(key) {
            match holds_what_its_name_says(&path) {
                Ok(true) => {
                    // What was used last leaves last. Where that cannot be noted the file only leaves earlier.
                    let _ = File::options()
                        .append(true)
                        .open(&path)
                        .and_then(|file| file.set_modified(SystemTime::now()));
                    return Some(path);
                }
                Ok(false) => {
                    tracing::warn!(
                        "{} is not what was written there: it is made anew",
                        path.display()
                    );
                    self.forget(&path);
                }
                // Another process may just have removed it.
                Err(error) => tracing::debug!("{}: {error}", path.display()),
            }
        }
        None
    }

    /// A place to write the graph of that key to.
    pub fn draft(&self, key: &Key) -> io::Result<Draft> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.folder)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self
            .folder
            .join(format!(".{}-{number}.onnx", std::process::id()));
        // Says at once, and not after the graph was made, that nothing can be written here.
        File::create_new(&path)?;
        Ok(Draft {
            graphs: self.clone(),
            key: key.clone(),
            path,
        })
    }

    /// Removes a graph that cannot be used.
    pub fn forget(&self, path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            tracing::debug!("cannot remove {}: {error}", path.display());
        }
    }

    fn of(&self, key: &Key) -> Vec<PathBuf> {
        let mut found: Vec<_> = self
            .kept()
            .into_iter()
            .map(|kept| kept.path)
            .filter(|path| named(path).is_some_and(|(of, _)| of == key.0))
            .collect();
        found.sort();
        found
    }

    fn kept(&self) -> Vec<Kept> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some(Kept {
                    path: entry.path(),
                    used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    bytes: metadata.len(),
                })
            })
            .collect()
    }

    /// Removes what was used least recently until the rest fits, and what a dead process left.
    fn prune(&self) {
        let now = SystemTime::now();
        let (mut kept, others): (Vec<_>, Vec<_>) = self
            .kept()
            .into_iter()
            .partition(|kept| named(&kept.path).is_some());
        for other in others {
            let age = now.duration_since(other.used).unwrap_or_default();
            if is_draft(&other.path) && age > ABANDONED {
                self.forget(&other.path);
            }
        }
        kept.sort_by_key(|kept| kept.used);
        let mut total: u64 = kept.iter().map(|kept| kept.bytes).sum();
        for old in kept {
            if total <= self.bound {
                break;
            }
            self.forget(&old.path);
            total -= old.bytes;
        }
    }
}

struct Kept {
    path: PathBuf,
    used: SystemTime,
    bytes: u64,
}

/// The key and the content's digest out of `KEY-DIGEST.onnx`.
fn named(path: &Path) -> Option<(&str, &str)> {
    let (key, digest) = path
        .file_name()?
        .to_str()?
        .strip_suffix(".onnx")?
        .split_once('-')?;
    (key.len() == DIGITS && digest.len() == DIGITS).then_some((key, digest))
}

fn is_draft(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.ends_with(".onnx")
}

fn holds_what_its_name_says(path: &Path) -> io::Result<bool> {
    let found = content(path)?;
    Ok(named(path).is_some_and(|(_, digest)| digest == found))
}

fn content(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(digits(&hasher.finalize()))
}

/// A graph on its way; what is not published is removed.
#[derive(Debug)]
pub struct Draft {
    graphs: Graphs,
    key: Key,
    path: PathBuf,
}

impl Draft {
    /// Where ONNX Runtime writes to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it under its name, in the place of others of its key, and makes room for it. `false`: nothing was written, or more
    /// than there is room for.
    pub fn publish(self) -> io::Result<bool> {
        let bytes = fs::metadata(&self.path)?.len();
        if bytes == 0 || bytes > self.graphs.bound {
            return Ok(false);
        }
        let name = format!("{}-{}.onnx", self.key.0, content(&self.path)?);
        let place = self.graphs.folder.join(name);
        fs::rename(&self.path, &place)?;
        for other in self.graphs.of(&self.key) {
            if other != place {
                self.graphs.forget(&other);
            }
        }
        self.graphs.prune();
        Ok(true)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After the publication there is nothing under this name.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(model: &str) -> Key {
        Key::new(
            &Digest::of(model.as_bytes()),
            Optimization::All,
            "CPU",
            "1.31.1",
            "avx2",
        )
    }

    fn keep(graphs: &Graphs, model: &str, content: &[u8]) -> bool {
        let draft = graphs.draft(&key(model)).unwrap();
        fs::write(draft.path(), content).unwrap();
        draft.publish().unwrap()
    }

    fn age(path: &Path, seconds: u64) {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(then).unwrap();
    }

    fn files(graphs: &Graphs) -> usize {
        fs::read_dir(&graphs.folder).unwrap().count()
    }

    #[test]
    fn a_graph_is_found_under_its_own_key_only() {
        let cache = tempfile::tempdir().unwrap();
        let graphs = Graphs::new(cache.path(), 100);
        assert_eq!(graphs.find(&key("a")), None);
        assert!(keep(&graphs, "a", b"graph of a"));
        let found = graphs.find(&key("a")).unwrap();
        assert_eq!(fs::read(found).unwrap(), b"graph of a");
        assert_eq!(graphs.find(&key("b")), None);
        assert_eq!(files(&graphs), 1, "the draft is gone");
    }

    #[test]
    fn everything_that_a_graph_depends_on_is_in_its_key() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let (all, off) = (Optimization::All, Optimization::Off);
        let base = Key::new(&a, all, "CPU", "1.31.1", "avx2");
        assert_eq!(base, Key::new(&a, all, "CPU", "1.31.1", "avx2"));
        for other in [
            Key::new(&b, all, "CPU", "1.31.1", "avx2"),
            Key::new(&a, off, "CPU", "1.31.1", "avx2"),
            Key::new(&a, all, "CUDA", "1.31.1", "avx2"),
            Key::new(&a, all, "CPU", "1.32.0", "avx2"),
            Key::new(&a, all, "CPU", "1.31.1", "avx512"),
            Key::new(&a, all, "CPU", "1.31", ".1avx2"),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn what_is_not_what_was_written_is_removed() {
        let cache = tempfile::tempdir().unwrap();
        let graphs = Graphs::new(cache.path(), 100);
        for broken in [&b"graph of "[..], b"graph of b", b""] {
            assert!(keep(&graphs, "a", b"graph of a"));
            let path = graphs.find(&key("a")).unwrap();
            fs::write(&path, broken).unwrap();
            assert_eq!(graphs.find(&key("a")), None);
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_was_used_least_recently_leaves_first() {
        let cache = tempfile::tempdir().unwrap();
        let graphs = Graphs::new(cache.path(), 20);
        for (model, old) in [("a", 300), ("b", 200)] {
            assert!(keep(&graphs, model, &[7; 10]));
            age(&graphs.of(&key(model))[0], old);
        }
        // Found is used.
        assert!(graphs.find(&key("a")).is_some());
        assert!(keep(&graphs, "c", &[7; 10]));
        let is_there = |model| !graphs.of(&key(model)).is_empty();
        assert_eq!(["a", "b", "c"].map(is_there), [true, false, true]);
        assert!(!keep(&graphs, "d", &[7; 21]), "larger than the bound");
        assert_eq!(["a", "d"].map(is_there), [true, false]);
    }

    #[test]
    fn a_new_graph_takes_the_place_of_the_old_one_and_of_what_dead_processes_left() {
        let cache = tempfile::tempdir().unwrap();
        let graphs = Graphs::new(cache.path(), 100);
        assert!(keep(&graphs, "a", b"first"));
        let dead = graphs.folder.join(".1-0.onnx");
        let alive = graphs.folder.join(".1-1.onnx");
        let foreign = graphs.folder.join("notes.txt");
        for path in [&dead, &alive, &foreign] {
            fs::write(path, "x").unwrap();
        }
        age(&dead, 7200);
        age(&foreign, 7200);
        assert!(keep(&graphs, "a", b"second"));
        assert_eq!(
            fs::read(graphs.find(&key("a")).unwrap()).unwrap(),
            b"second"
        );
        assert_eq!(graphs.of(&key("a")).len(), 1);
        assert_eq!(
            [&dead, &alive, &foreign].map(|path| path.exists()),
            [false, true, true]
        );
    }

    #[test]
    fn an_unpublished_draft_leaves_nothing_and_an_empty_one_is_none() {
        let cache = tempfile::tempdir().unwrap();
        let graphs = Graphs::new(cache.path(), 100);
        drop(graphs.draft(&key("a")).unwrap());
        assert!(!graphs.draft(&key("a")).unwrap().publish().unwrap());
        assert_eq!(files(&graphs), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_said_before_any_work() {
        let cache = tempfile::NamedTempFile::new().unwrap();
        let graphs = Graphs::new(cache.path(), 100);
        assert!(graphs.draft(&key("a")).is_err());
        assert_eq!(graphs.find(&key("a")), None);
    }

    #[test]
    fn the_processor_is_known_by_its_instructions_not_by_its_clock() {
        let cpuinfo = |mhz: &str, flags: &str| {
            format!(
                "processor\t: 0\nvendor_id\t: X\nmodel name\t: Y\ncpu MHz\t\t: {mhz}\nflags\t\t: {flags}\n\n\
                 processor\t: 1\nflags\t\t: other\n"
            )
        };
        let known = of_processor(&cpuinfo("2000", "avx2"));
        assert!(known.is_some());
        assert_eq!(known, of_processor(&cpuinfo("3000", "avx2")));
        assert_ne!(known, of_processor(&cpuinfo("2000", "avx2 avx512f")));
        assert!(of_processor("Features\t: asimd\nCPU part\t: 0xd40\n").is_some());
        assert_eq!(of_processor("model name\t: Z\n"), None);
    }
}
