//! A directory as a value: the list of its files with their digests.
//!
//! The **digest of a directory** is the SHA-256 of this text, one line for each file below it,
//! sorted by the bytes of the path: `<64 hex digits of the file><two spaces><path>` and a line
//! feed. It is what these commands print:
//!
//! ```text
//! cd DIRECTORY && find -L . -type f -not -path '*/.*' -printf '%P\n' \
//!   | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum
//! ```
//!
//! Names that start with a dot do not count (Kubernetes mounts keep `..data` there, file managers
//! their notes). Links to files are followed; with a `root` only while they stay below it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    digest::{self, Digest},
    disk,
    failure::{Failure, Reason},
    task::Pulse,
};

/// More than any model needs; a directory of a whole disk is a mistake.
pub(crate) const MAX_FILES: usize = 10_000;
/// Deeper than any model.
pub(crate) const MAX_DEPTH: usize = 32;

/// One file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the tree, with `/` between the parts.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) stamp: Stamp,
}

/// What the file system says of a file without reading it. Content does not change without one of
/// them: a write moves `changed`, whatever sets `modified` back; a rename brings another `inode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    inode: (u64, u64),
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            inode: (meta.dev(), meta.ino()),
        }
    }
}

/// The files below `dir`, sorted by path. `root`: links that lead out of it are refused.
pub(crate) fn list(dir: &Path, root: Option<&Path>) -> Result<Vec<Entry>, Failure> {
    let root = match root {
        Some(root) => Some(
            root.canonicalize()
                .map_err(|e| disk::failure("read", root, &e))?,
        ),
        None => None,
    };
    let mut entries = Vec::new();
    let mut folders = vec![(dir.to_path_buf(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let broken = |e: io::Error| disk::failure("read", &folder, &e);
        for item in fs::read_dir(&folder).map_err(broken)? {
            let item = item.map_err(broken)?;
            let Some(name) = plain_name(&item)? else {
                continue;
            };
            let path = format!("{prefix}{name}");
            let full = item.path();
            let meta = fs::metadata(&full).map_err(|e| disk::failure("read", &full, &e))?;
            confined(&full, root.as_deref())?;
            if meta.is_dir() {
                if depth >= MAX_DEPTH {
                    return Err(too_much(
                        dir,
                        &format!("is more than {MAX_DEPTH} folders deep"),
                    ));
                }
                folders.push((full, format!("{path}/"), depth + 1));
            } else if meta.is_file() {
                entries.push(Entry {
                    path,
                    bytes: meta.len(),
                    stamp: Stamp::of(&meta),
                });
            } else {
                return Err(too_much(dir, &format!("holds {path}, which is no file")));
            }
            if entries.len() + folders.len() > MAX_FILES {
                return Err(too_much(dir, &format!("holds more than {MAX_FILES} files")));
            }
        }
    }
    entries.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    Ok(entries)
}

fn plain_name(item: &fs::DirEntry) -> Result<Option<String>, Failure> {
    let name = item.file_name();
    if name.as_encoded_bytes().starts_with(b".") {
        return Ok(None);
    }
    let plain = |n: &str| !n.contains('\\') && !n.chars().any(char::is_control);
    match name.into_string() {
        Ok(name) if plain(&name) => Ok(Some(name)),
        _ => Err(Failure::new(
            Reason::InvalidModel,
            format!(
                "the name of {} is no plain text; rename the file without backslashes and control \
                 characters",
                item.path().display()
            ),
        )),
    }
}

/// Refuses a path whose target lies outside `root` (already canonical).
pub(crate) fn confined(path: &Path, root: Option<&Path>) -> Result<(), Failure> {
    let Some(root) = root else { return Ok(()) };
    let real = path
        .canonicalize()
        .map_err(|e| disk::failure("read", path, &e))?;
    if real.starts_with(root) {
        return Ok(());
    }
    Err(Failure::new(
        Reason::AccessDenied,
        format!(
            "{} is a link that leads out of {}; put the file itself there",
            path.display(),
            root.display()
        ),
    ))
}

fn too_much(dir: &Path, what: &str) -> Failure {
    Failure::new(
        Reason::InvalidModel,
        format!(
            "the directory {} {what}; give a directory that holds one model and nothing else",
            dir.display()
        ),
    )
}

/// The text that the digest of a directory is the digest of. Reads every file once.
pub(crate) fn manifest(dir: &Path, entries: &[Entry], pulse: &Pulse) -> Result<String, Failure> {
    let mut text = String::new();
    for entry in entries {
        let path: PathBuf = dir.join(&entry.path);
        let (digest, _) = digest::of_file(&path, |n| pulse.advance(n))
            .map_err(|e| disk::failure("read", &path, &e))?;
        text.push_str(&line(&digest, &entry.path));
    }
    Ok(text)
}

/// One line of a manifest.
pub(crate) fn line(digest: &Digest, path: &str) -> String {
    format!("{}  {path}\n", digest.hex())
}

/// Digest and size of a directory.
pub(crate) fn digest(
    dir: &Path,
    entries: &[Entry],
    pulse: &Pulse,
) -> Result<(Digest, u64), Failure> {
    let text = manifest(dir, entries, pulse)?;
    Ok((
        Digest::of(text.as_bytes()),
        entries.iter().map(|e| e.bytes).sum(),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use super::*;

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.onnx"), b"onnx").unwrap();
        fs::write(dir.path().join("Labels one.txt"), b"daisy\n").unwrap();
        fs::create_dir(dir.path().join("weights")).unwrap();
        fs::write(dir.path().join("weights/a.bin"), b"aaaa").unwrap();
        fs::create_dir(dir.path().join("..data")).unwrap();
        fs::write(dir.path().join("..data/hidden"), b"x").unwrap();
        symlink("weights/a.bin", dir.path().join("alias.bin")).unwrap();
        dir
    }

    #[test]
    fn the_digest_of_a_directory_is_what_the_documented_commands_print() {
        let dir = sample();
        let entries = list(dir.path(), Some(dir.path())).unwrap();
        let (digest, bytes) = digest(dir.path(), &entries, &Pulse::default()).unwrap();
        assert_eq!(bytes, 4 + 6 + 4 + 4);
        let shell = "find -L . -type f -not -path '*/.*' -printf '%P\\n' \
                     | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum";
        let out = Command::new("sh")
            .arg("-c")
            .arg(shell)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let printed = String::from_utf8(out.stdout).unwrap();
        assert_eq!(
            printed.split_whitespace().next(),
            Some(digest.hex().as_str())
        );
    }

    #[test]
    fn a_link_out_of_the_volume_is_refused_and_followed_where_there_is_no_volume() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), dir.path().join("model.onnx")).unwrap();
        let failure = list(dir.path(), Some(dir.path())).unwrap_err();
        assert_eq!(failure.reason, Reason::AccessDenied);
        assert!(failure.message.contains("leads out of"), "{failure}");
        assert_eq!(list(dir.path(), None).unwrap().len(), 1);
    }

    #[test]
    fn a_loop_of_links_ends_with_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        symlink(dir.path(), dir.path().join("again")).unwrap();
        let failure = list(dir.path(), None).unwrap_err();
        assert!(failure.message.contains("folders deep"), "{failure}");
    }
}
