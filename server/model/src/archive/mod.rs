//! Takes an archive apart into a fresh folder, and refuses what no model's archive holds.
//!
//! Refused: paths that leave the folder, links, devices, sparse and encrypted entries, the same
//! path twice, more than [`MAX_FILES`](crate::tree::MAX_FILES) entries, and bombs (see [`meter`]).
//! Names that start with a dot are checked, but not written (`._model.onnx` of macOS).
//! Invariants: nothing is written outside the target, which must be empty and ours; no permission
//! bits, owners or times are taken over.

mod meter;
mod path;
mod tar;
mod zip;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    rc::Rc,
};

use self::meter::{Meter, Metered};
use crate::{
    digest::{Digest, Hasher},
    disk,
    failure::{Failure, Reason},
    limit::Limit,
    sniff::Archive,
    task::Pulse,
    tree::{self, MAX_FILES},
};

/// zstd's own limit for decoders: 128 MiB of window, so that a header cannot ask for more memory.
const ZSTD_WINDOW_LOG: u32 = 27;
const COPY_BUFFER: usize = 256 * 1024;

/// Why an archive is refused: the part of the sentence after its name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) String);

/// What ends an unpacking.
#[derive(Debug)]
pub(crate) enum Stop {
    Refused(Refusal),
    /// Reading the archive failed: it is broken.
    Broken(String),
    /// Writing failed: not the archive's fault.
    Failed(Failure),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Unpacks `file` into `target` and answers the manifest of what it wrote (see [`tree::manifest`]).
/// Blocking. `name` is the archive in sentences, `limit` the bound for all that comes out.
///
/// [`tree::manifest`]: crate::tree::manifest
pub(crate) fn unpack(
    name: &str,
    file: &Path,
    kind: Archive,
    target: &Path,
    limit: impl Into<Limit>,
    pulse: &Pulse,
) -> Result<String, Failure> {
    let packed = File::open(file)
        .and_then(|f| Ok((f.metadata()?.len(), f)))
        .map_err(|e| disk::failure("read", file, &e))?;
    let meter = Rc::new(Meter::new(name, packed.0, limit, pulse));
    let reader = BufReader::with_capacity(COPY_BUFFER, packed.1);
    let mut writer = Writer::new(target, Rc::clone(&meter));
    let outcome = match kind {
        Archive::Tar => tar::unpack(reader, &meter, &mut writer),
        Archive::TarGz => tar::unpack(
            flate2::bufread::MultiGzDecoder::new(reader),
            &meter,
            &mut writer,
        ),
        Archive::TarZst => zstd_reader(reader).and_then(|r| tar::unpack(r, &meter, &mut writer)),
        Archive::Zip => zip::unpack(reader, &mut writer),
    };
    let refused = |sentence: String| Failure::new(Reason::ArchiveRefused, sentence);
    // The meter's own reason first: libraries wrap it into words of theirs.
    match (outcome, meter.refusal()) {
        (Ok(()), _) => Ok(writer.manifest()),
        (Err(Stop::Failed(failure)), _) => Err(failure),
        (Err(_), Some(failure)) => Err(failure),
        (Err(Stop::Refused(refusal)), None) => {
            Err(refused(format!("the archive {name} {}", refusal.0)))
        }
        (Err(Stop::Broken(cause)), None) => Err(refused(format!(
            "the archive {name} is broken or truncated ({cause}); pack and upload it again"
        ))),
    }
}

fn zstd_reader(reader: BufReader<File>) -> Result<impl Read, Stop> {
    let broken = |e: io::Error| Stop::Broken(e.to_string());
    let mut decoder = zstd::stream::read::Decoder::with_buffer(reader).map_err(broken)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
    Ok(decoder)
}

/// Writes entries below the target and counts them.
pub(crate) struct Writer<'a> {
    target: PathBuf,
    /// Every file so far; those that were written with their digest.
    seen: BTreeMap<String, Option<Digest>>,
    entries: usize,
    buffer: Vec<u8>,
    meter: Rc<Meter<'a>>,
}

impl<'a> Writer<'a> {
    fn new(target: &Path, meter: Rc<Meter<'a>>) -> Self {
        Self {
            target: target.to_path_buf(),
            seen: BTreeMap::new(),
            entries: 0,
            buffer: vec![0; COPY_BUFFER],
            meter,
        }
    }

    /// Counts one entry and makes its path safe.
    fn admit(&mut self, raw: &[u8]) -> Result<Option<String>, Refusal> {
        self.entries += 1;
        if self.entries > MAX_FILES {
            return Err(Refusal(format!("holds more than {MAX_FILES} entries")));
        }
        path::safe(raw)
    }

    /// A folder entry: made when the first file needs it, so that only its path is checked.
    pub(crate) fn folder(&mut self, raw: &[u8]) -> Result<(), Stop> {
        self.admit(raw)?;
        Ok(())
    }

    /// A file entry.
    pub(crate) fn file(&mut self, raw: &[u8], content: &mut impl Read) -> Result<(), Stop> {
        let Some(relative) = self.admit(raw)? else {
            return Err(Refusal("holds a file without a name".to_owned()).into());
        };
        if self.seen.contains_key(&relative) {
            return Err(Refusal(format!("holds {relative} twice")).into());
        }
        let full = self.target.join(&relative);
        let digest = if relative.split('/').any(|part| part.starts_with('.')) {
            io::copy(content, &mut io::sink()).map_err(|e| Stop::Broken(e.to_string()))?;
            None
        } else {
            Some(self.write(&full, content)?)
        };
        self.seen.insert(relative, digest);
        Ok(())
    }

    fn write(&mut self, full: &Path, content: &mut impl Read) -> Result<Digest, Stop> {
        let mut out = create(full)?;
        let mut hasher = Hasher::default();
        loop {
            let n = match content.read(&mut self.buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Stop::Broken(e.to_string())),
            };
            hasher.update(&self.buffer[..n]);
            out.write_all(&self.buffer[..n])
                .map_err(|e| Stop::Failed(disk::write_failure(full, None, &e)))?;
        }
    }

    /// Paths of a [`BTreeMap`] come out in the order of their bytes, as a manifest wants them.
    fn manifest(&self) -> String {
        let written = self
            .seen
            .iter()
            .filter_map(|(path, digest)| Some((path, digest.as_ref()?)));
        written
            .map(|(path, digest)| tree::line(digest, path))
            .collect()
    }

    /// A reader whose bytes count against the archive's bounds.
    pub(crate) fn metered<R: Read>(&self, reader: R) -> Metered<'a, R> {
        Metered::new(reader, Rc::clone(&self.meter))
    }
}

fn create(full: &Path) -> Result<File, Stop> {
    let made = match full.parent() {
        Some(folder) => fs::create_dir_all(folder),
        None => Ok(()),
    };
    made.and_then(|()| OpenOptions::new().write(true).create_new(true).open(full))
        .map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory => {
                let name = full.file_name().unwrap_or_default().to_string_lossy();
                Stop::Refused(Refusal(format!(
                    "holds {name:?} both as a file and as a folder"
                )))
            }
            _ => Stop::Failed(disk::write_failure(full, None, &e)),
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
