//! The way from a request to a package, top to bottom: cached? → fetch → verify → unpack.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    ModelConfig, ModelUri, Package, Phase, Progress, Request, archive,
    cache::{Cache, Work},
    config,
    digest::{self, Digest},
    disk,
    failure::{Failure, Reason},
    layout,
    sniff::{self, Kind},
    source::{Chosen, Fetched, file::ensure_size},
    task::{Pulse, blocking},
    tree,
};

/// Fetches, verifies and unpacks a model.
///
/// # Errors
/// A [`Failure`] whose reason is the exit code and whose sentence is for the user. Errors of the
/// network have been tried again already. Dropping the future stops the work soon after.
pub async fn obtain(request: &Request, progress: &dyn Progress) -> Result<Package, Failure> {
    let cache = Cache::new(&request.cache_dir);
    let source = Chosen::of(request)?;
    let mut watch = Watch::new(progress);
    if let Some(package) = cached(request, &cache, &mut watch).await? {
        return Ok(package);
    }

    watch.start(Phase::Fetch);
    let work = if source.downloads() {
        Some(cache.work()?)
    } else {
        None
    };
    let target = work.as_ref().map(Work::download).unwrap_or_default();
    let fetched = source.fetch(&target, progress).await?;

    watch.start(Phase::Verify);
    let verified = verify(request, fetched, progress).await?;

    watch.start(Phase::Unpack);
    let job = Unpacking {
        name: request.uri.to_string(),
        cache,
        work,
        limit: request.max_model_bytes,
    };
    let Verified { digest, bytes, .. } = verified;
    let (model_path, config) = blocking(progress, None, move |p| job.run(verified, p)).await?;
    Ok(Package {
        model_path,
        digest,
        bytes,
        config,
        timings: watch.stop(),
    })
}

/// A download that is here already and whose digest the request names needs no store.
async fn cached(
    request: &Request,
    cache: &Cache,
    watch: &mut Watch<'_>,
) -> Result<Option<Package>, Failure> {
    let (Some(digest), ModelUri::Http(_)) = (request.expected_digest, &request.uri) else {
        return Ok(None);
    };
    let (cache, name) = (cache.clone(), request.uri.to_string());
    watch.start(Phase::Verify);
    let found = blocking(watch.progress, None, move |pulse| {
        let Some(hit) = cache.find(&digest, pulse) else {
            return Ok(None);
        };
        Ok(Some((
            hit.fetched,
            open(&name, Reason::ArchiveRefused, &hit.folder, None)?,
        )))
    });
    let Some((bytes, (model_path, config))) = found.await? else {
        return Ok(None);
    };
    watch.start(Phase::Unpack);
    Ok(Some(Package {
        model_path,
        digest,
        bytes,
        config,
        timings: watch.stop(),
    }))
}

/// What was fetched, with its digest; that it is the expected one is established.
struct Verified {
    digest: Digest,
    bytes: u64,
    content: Content,
}

enum Content {
    /// Stays where it is; `model.yaml` lies beside it.
    File {
        file: PathBuf,
        kind: Kind,
        root: Option<PathBuf>,
    },
    Directory {
        folder: PathBuf,
        root: Option<PathBuf>,
    },
    /// Moves into the cache.
    Download { file: PathBuf, kind: Kind },
}

async fn verify(
    request: &Request,
    fetched: Fetched,
    progress: &dyn Progress,
) -> Result<Verified, Failure> {
    let (name, limit) = (request.uri.to_string(), request.max_model_bytes);
    let verified = match fetched {
        Fetched::Downloaded {
            file,
            bytes,
            digest,
        } => {
            let kind = kind_of(&name, &file)?;
            Verified {
                digest,
                bytes,
                content: Content::Download { file, kind },
            }
        }
        Fetched::InPlace { file, bytes, root } => {
            let kind = kind_of(&name, &file)?;
            blocking(progress, Some(bytes), move |pulse| {
                let hashed = digest::of_file(&file, |n| pulse.advance(n));
                let (digest, bytes) = hashed.map_err(|e| disk::failure("read", &file, &e))?;
                Ok(Verified {
                    digest,
                    bytes,
                    content: Content::File { file, kind, root },
                })
            })
            .await?
        }
        Fetched::Directory { folder, root } => {
            blocking(progress, None, move |pulse| {
                let entries = tree::list(&folder, root.as_deref())?;
                ensure_size(&folder, entries.iter().map(|e| e.bytes).sum(), limit)?;
                let (digest, bytes) = tree::digest(&folder, &entries, pulse)?;
                Ok(Verified {
                    digest,
                    bytes,
                    content: Content::Directory { folder, root },
                })
            })
            .await?
        }
    };
    match request.expected_digest {
        Some(expected) if expected != verified.digest => Err(Failure::new(
            Reason::DigestMismatch,
            format!(
                "{} has the digest {}, expected was {expected}: the model was changed or damaged; \
                 if the change is meant, write the new digest",
                request.uri, verified.digest
            ),
        )),
        _ => Ok(verified),
    }
}

fn kind_of(name: &str, file: &Path) -> Result<Kind, Failure> {
    let mut head = Vec::with_capacity(sniff::HEAD);
    File::open(file)
        .and_then(|f| f.take(sniff::HEAD as u64).read_to_end(&mut head))
        .map_err(|e| disk::failure("read", file, &e))?;
    sniff::kind(name, &head)
}

/// The last step, on a blocking thread.
struct Unpacking {
    name: String,
    cache: Cache,
    work: Option<Work>,
    limit: u64,
}

impl Unpacking {
    fn run(mut self, verified: Verified, pulse: &Pulse) -> Result<(PathBuf, ModelConfig), Failure> {
        match verified.content {
            Content::Directory { folder, root } => {
                let what = format!("the directory {}", folder.display());
                open(&what, Reason::ModelNotFound, &folder, root.as_deref())
            }
            Content::File {
                file,
                kind: Kind::Bare,
                root,
            } => {
                let config = beside(&file, root.as_deref())?;
                Ok((file, config))
            }
            Content::Download {
                ref file,
                kind: Kind::Bare,
            } => {
                let work = self.work_folder()?;
                let model = work.stage().join("model.onnx");
                fs::rename(file, &model).map_err(|e| disk::write_failure(&model, None, &e))?;
                let listed = tree::line(&verified.digest, "model.onnx");
                let folder =
                    self.cache
                        .publish(&work, &verified.digest, verified.bytes, &listed)?;
                open(&self.name, Reason::ArchiveRefused, &folder, None)
            }
            Content::File {
                ref file,
                kind: Kind::Archive(kind),
                ..
            }
            | Content::Download {
                ref file,
                kind: Kind::Archive(kind),
            } => self.unpack(file, kind, verified.digest, verified.bytes, pulse),
        }
    }

    fn unpack(
        mut self,
        file: &Path,
        kind: sniff::Archive,
        digest: Digest,
        bytes: u64,
        pulse: &Pulse,
    ) -> Result<(PathBuf, ModelConfig), Failure> {
        let what = format!("the archive {}", self.name);
        if let Some(hit) = self.cache.find(&digest, pulse) {
            return open(&what, Reason::ArchiveRefused, &hit.folder, None);
        }
        let work = self.work_folder()?;
        let listed = archive::unpack(&self.name, file, kind, &work.stage(), self.limit, pulse)?;
        // Refuse before it has a place in the cache.
        open(&what, Reason::ArchiveRefused, &work.stage(), None)?;
        let folder = self.cache.publish(&work, &digest, bytes, &listed)?;
        open(&what, Reason::ArchiveRefused, &folder, None)
    }

    /// The download's own folder; a file that stays in place needs one only now.
    fn work_folder(&mut self) -> Result<Work, Failure> {
        self.work.take().map_or_else(|| self.cache.work(), Ok)
    }
}

/// Finds the model of a folder and reads its configuration.
fn open(
    what: &str,
    reason: Reason,
    folder: &Path,
    root: Option<&Path>,
) -> Result<(PathBuf, ModelConfig), Failure> {
    let entries = tree::list(folder, root)?;
    let parts = layout::locate(what, reason, &entries)?;
    let config = match parts.config {
        Some(file) => config::load(&folder.join(file), root)?,
        None => ModelConfig::default(),
    };
    Ok((folder.join(parts.model), config))
}

/// The configuration of a bare model: `model.yaml` in its folder.
fn beside(model: &Path, root: Option<&Path>) -> Result<ModelConfig, Failure> {
    let file = model.with_file_name(config::FILE);
    match fs::metadata(&file) {
        Ok(_) => config::load(&file, root),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let other = model.with_file_name("model.yml");
            if other.exists() {
                Err(layout::misnamed(&other))
            } else {
                Ok(ModelConfig::default())
            }
        }
        Err(e) => Err(disk::failure("read", &file, &e)),
    }
}

/// Times the phases. Each is reported once, in order; one that was not needed took no time.
struct Watch<'a> {
    progress: &'a dyn Progress,
    running: Option<(Phase, Instant)>,
    spent: [Duration; 3],
}

const ORDER: [Phase; 3] = [Phase::Fetch, Phase::Verify, Phase::Unpack];

impl<'a> Watch<'a> {
    fn new(progress: &'a dyn Progress) -> Self {
        Self {
            progress,
            running: None,
            spent: [Duration::ZERO; 3],
        }
    }

    fn start(&mut self, phase: Phase) {
        self.note();
        self.progress.phase(phase);
        self.running = Some((phase, Instant::now()));
    }

    fn note(&mut self) {
        let Some((phase, since)) = self.running.take() else {
            return;
        };
        for (known, spent) in ORDER.iter().zip(&mut self.spent) {
            if *known == phase {
                *spent += since.elapsed();
            }
        }
    }

    fn stop(&mut self) -> Vec<(Phase, Duration)> {
        self.note();
        ORDER.into_iter().zip(self.spent).collect()
    }
}
