//! The way from a request to a package, top to bottom: cached? → fetch → verify → unpack.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    Held, ModelConfig, ModelUri, Package, Phase, Progress, Request, archive,
    cache::{Cache, Work},
    config::{self, OwnConfig},
    digest::{self, Digest},
    disk,
    failure::{Failure, Reason},
    layout,
    limit::Limit,
    repository::{Repository, Shape, root_of},
    settings::Settings,
    sniff::{self, Kind},
    source::{Chosen, Fetched, file::ensure_size},
    task::{Pulse, blocking},
    tree, triton,
};

/// What a URI led to.
#[derive(Debug)]
pub enum Found {
    /// One model.
    Model(Box<Package>),
    /// A folder of models.
    Repository {
        /// To look into and to open models from.
        repository: Repository,
        /// Of everything in it: of the directory, or of the fetched archive. `None`: it may change.
        digest: Option<Digest>,
        /// How long each phase took, in order: Fetch, Verify, Unpack.
        timings: Vec<(Phase, Duration)>,
        /// It is a directory in place, whose changes can be seen.
        is_in_place: bool,
    },
}

/// Fetches, verifies and unpacks one model, whatever shape the request expects.
///
/// # Errors
/// A [`Failure`] whose reason is the exit code and whose sentence is for the user. Errors of the
/// network have been tried again already. Dropping the future stops the work soon after.
pub async fn obtain(request: &Request, progress: &dyn Progress) -> Result<Package, Failure> {
    let request = Request {
        shape: Shape::Single,
        ..request.clone()
    };
    match discover(&request, progress).await? {
        Found::Model(package) => Ok(*package),
        Found::Repository { repository, .. } => Err(Failure::new(
            Reason::Internal,
            format!("{} was taken for a repository", repository.root().display()),
        )),
    }
}

/// Fetches, verifies and unpacks a model, or a repository of several.
///
/// # Errors
/// As [`obtain`].
pub async fn discover(request: &Request, progress: &dyn Progress) -> Result<Found, Failure> {
    let cache = Cache::new(&request.cache_dir);
    let source = Chosen::of(request)?;
    let mut watch = Watch::new(progress);
    if let Some(found) = cached(request, &cache, &mut watch).await? {
        return Ok(found);
    }

    watch.start(Phase::Fetch);
    let work = if source.downloads() {
        Some(cache.work()?)
    } else {
        None
    };
    let target = work.as_ref().map(Work::download).unwrap_or_default();
    let fetched = source.fetch(&target, progress).await?;
    let is_in_place = matches!(fetched, Fetched::Directory { .. });
    if let (Fetched::Directory { folder, root }, true, None) =
        (&fetched, request.is_live, request.expected_digest)
    {
        refuse_own(request)?;
        let (folder, root, limit) = (folder.clone(), root.clone(), request.max_model_bytes);
        let repository = blocking(progress, None, move |_| live(folder, root, limit)).await?;
        let repository = repository.live(cache);
        return Ok(Found::Repository {
            repository,
            digest: None,
            timings: watch.stop(),
            is_in_place,
        });
    }

    watch.start(Phase::Verify);
    let verified = verify(request, fetched, progress).await?;

    watch.start(Phase::Unpack);
    let job = Unpacking {
        name: request.uri.to_string(),
        cache,
        work,
        limit: Limit::new(request.max_model_bytes, request.max_cache_bytes),
        shape: request.shape,
        own: request.model_config.clone(),
    };
    let Verified { digest, bytes, .. } = verified;
    let opened = blocking(progress, None, move |p| job.run(verified, p)).await?;
    if matches!(opened, Opened::Repository { .. }) {
        refuse_own(request)?;
    }
    Ok(opened.found(digest, bytes, request, watch.stop(), is_in_place))
}

/// In a repository each model has a `model.yaml` of its own.
fn refuse_own(request: &Request) -> Result<(), Failure> {
    match &request.model_config {
        None => Ok(()),
        Some(own) => Err(Failure::new(
            Reason::InvalidConfig,
            format!(
                "{} is for one model, and {} is a repository of several models; put a {} into each model's folder",
                match own {
                    OwnConfig::File(path) => format!("--model-config {}", path.display()),
                    OwnConfig::Inline(_) => own.name(),
                },
                request.uri,
                config::FILE
            ),
        )),
    }
}

/// A repository whose content may change: nothing but its place is decided. Blocking.
fn live(folder: PathBuf, root: Option<PathBuf>, limit: u64) -> Result<Repository, Failure> {
    let entries = tree::list(&folder, root.as_deref())?;
    let below = root_of(&entries, true).unwrap_or_default();
    Ok(Repository::new(folder.join(below), root, limit))
}

/// What a folder turned out to be.
enum Opened {
    Model {
        path: PathBuf,
        config: Box<ModelConfig>,
        settings: Box<Settings>,
        notes: Vec<String>,
    },
    Repository {
        folder: PathBuf,
        root: Option<PathBuf>,
    },
}

impl Opened {
    fn bare(path: PathBuf, config: ModelConfig) -> Self {
        Self::Model {
            path,
            settings: Box::new(Settings::default().overlaid(&config.batching)),
            config: Box::new(config),
            notes: Vec::new(),
        }
    }

    fn found(
        self,
        digest: Digest,
        bytes: u64,
        request: &Request,
        timings: Vec<(Phase, Duration)>,
        is_in_place: bool,
    ) -> Found {
        match self {
            Self::Model {
                path,
                config,
                settings,
                notes,
            } => Found::Model(Box::new(Package {
                model_path: path,
                files: Held::default(),
                digest,
                bytes,
                config: *config,
                settings: *settings,
                notes,
                timings,
            })),
            Self::Repository { folder, root } => Found::Repository {
                repository: {
                    let repository = Repository::new(folder, root, request.max_model_bytes);
                    match is_in_place && request.is_live {
                        true => repository.live(Cache::new(&request.cache_dir)),
                        false => repository,
                    }
                },
                digest: Some(digest),
                timings,
                is_in_place,
            },
        }
    }
}

/// A download that is here already and whose digest the request names needs no store.
async fn cached(
    request: &Request,
    cache: &Cache,
    watch: &mut Watch<'_>,
) -> Result<Option<Found>, Failure> {
    let (Some(digest), ModelUri::Http(_)) = (request.expected_digest, &request.uri) else {
        return Ok(None);
    };
    let (cache, name, shape) = (cache.clone(), request.uri.to_string(), request.shape);
    let own = request.model_config.clone();
    watch.start(Phase::Verify);
    let found = blocking(watch.progress, None, move |pulse| {
        let Some(hit) = cache.find(&digest, pulse) else {
            return Ok(None);
        };
        Ok(Some((
            hit.fetched,
            open(
                &name,
                Reason::ArchiveRefused,
                Folder::of(&hit.folder, None, own.as_ref()),
                shape,
            )?,
        )))
    });
    let Some((bytes, opened)) = found.await? else {
        return Ok(None);
    };
    if matches!(opened, Opened::Repository { .. }) {
        refuse_own(request)?;
    }
    watch.start(Phase::Unpack);
    Ok(Some(opened.found(
        digest,
        bytes,
        request,
        watch.stop(),
        false,
    )))
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
    limit: Limit,
    shape: Shape,
    /// The user's own configuration.
    own: Option<OwnConfig>,
}

/// Where a model is looked for, and how it is configured besides.
#[derive(Clone, Copy)]
struct Folder<'a> {
    path: &'a Path,
    /// No link may lead out of here.
    root: Option<&'a Path>,
    /// The user's own configuration.
    own: Option<&'a OwnConfig>,
}

impl<'a> Folder<'a> {
    const fn of(path: &'a Path, root: Option<&'a Path>, own: Option<&'a OwnConfig>) -> Self {
        Self { path, root, own }
    }
}

impl Unpacking {
    fn run(mut self, verified: Verified, pulse: &Pulse) -> Result<Opened, Failure> {
        match verified.content {
            Content::Directory { folder, root } => {
                let what = format!("the directory {}", folder.display());
                let folder = Folder::of(&folder, root.as_deref(), self.own.as_ref());
                open(&what, Reason::ModelNotFound, folder, self.shape)
            }
            Content::File {
                file,
                kind: Kind::Bare,
                root,
            } => {
                let config = beside(&file, root.as_deref(), self.own.as_ref())?;
                Ok(Opened::bare(file, config))
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
                let folder = Folder::of(&folder, None, self.own.as_ref());
                open(&self.name, Reason::ArchiveRefused, folder, Shape::Single)
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
    ) -> Result<Opened, Failure> {
        let what = format!("the archive {}", self.name);
        let (shape, own) = (self.shape, self.own.take());
        let look = |folder: &Path| {
            let folder = Folder::of(folder, None, own.as_ref());
            open(&what, Reason::ArchiveRefused, folder, shape)
        };
        if let Some(hit) = self.cache.find(&digest, pulse) {
            return look(&hit.folder);
        }
        // A download stays until its content is whole; an archive in place takes nothing of the folder.
        let downloaded = self.work.as_ref().map_or(0, |_| bytes);
        let limit = self.limit.after(downloaded);
        let work = self.work_folder()?;
        let listed = archive::unpack(&self.name, file, kind, &work.stage(), limit, pulse)?;
        // Refuse before it has a place in the cache.
        look(&work.stage())?;
        let folder = self.cache.publish(&work, &digest, bytes, &listed)?;
        look(&folder)
    }

    /// The download's own folder; a file that stays in place needs one only now.
    fn work_folder(&mut self) -> Result<Work, Failure> {
        self.work.take().map_or_else(|| self.cache.work(), Ok)
    }
}

/// Finds the model of a folder and reads its configuration, or finds that it holds several.
fn open(what: &str, reason: Reason, folder: Folder<'_>, shape: Shape) -> Result<Opened, Failure> {
    let Folder {
        path: folder,
        root,
        own,
    } = folder;
    let entries = tree::list(folder, root)?;
    let below = match shape {
        Shape::Single => None,
        Shape::Auto => root_of(&entries, false),
        Shape::Repository => Some(root_of(&entries, true).unwrap_or_default()),
    };
    if let Some(below) = below {
        return Ok(Opened::Repository {
            folder: folder.join(below),
            root: root.map(Path::to_path_buf),
        });
    }
    let parts = layout::locate(what, reason, &entries)?;
    let path = folder.join(parts.model);
    let packaged = parts.config.map(|file| folder.join(file));
    let beside = path.parent().unwrap_or(folder);
    let config = config::load(packaged.as_deref(), own, beside, root)?;
    let triton = match parts.triton {
        Some(file) => triton::load(&folder.join(file), root)?,
        None => triton::Config::default(),
    };
    Ok(Opened::Model {
        path,
        settings: Box::new(triton.settings.overlaid(&config.batching)),
        config: Box::new(config),
        notes: triton.notes,
    })
}

/// The configuration of a bare model: `model.yaml` in its folder.
fn beside(
    model: &Path,
    root: Option<&Path>,
    own: Option<&OwnConfig>,
) -> Result<ModelConfig, Failure> {
    let file = model.with_file_name(config::FILE);
    let folder = model.parent().unwrap_or(Path::new("."));
    match fs::metadata(&file) {
        Ok(_) => config::load(Some(&file), own, folder, root),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let other = model.with_file_name("model.yml");
            if other.exists() {
                Err(layout::misnamed(&other))
            } else {
                config::load(None, own, folder, root)
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
