//! What the file system says, in sentences: one mapping of I/O errors for the whole crate.

use std::{io, path::Path};

use crate::failure::{Failure, Reason};

/// What a user has to provide, for the end of a sentence.
pub(crate) const NEEDS: &str =
    "a download needs the size of its file, an archive also the size of what it holds";

/// The failure of reading or writing `path`. `doing` completes "cannot …", for example "read".
pub(crate) fn failure(doing: &str, path: &Path, error: &io::Error) -> Failure {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(Reason::ModelNotFound, format!("{shown} does not exist"))
        }
        io::ErrorKind::PermissionDenied => Failure::new(
            Reason::AccessDenied,
            format!("cannot {doing} {shown}: permission denied for this user"),
        ),
        _ if is_full(error) => full(path, None, &error.to_string()),
        _ => Failure::new(Reason::Internal, format!("cannot {doing} {shown}: {error}")),
    }
}

/// The failure of writing below the cache. Here a missing or forbidden folder is not the model's.
pub(crate) fn write_failure(path: &Path, needed: Option<u64>, error: &io::Error) -> Failure {
    if is_full(error) {
        return full(path, needed, &error.to_string());
    }
    Failure::new(
        Reason::InvalidConfig,
        format!(
            "cannot write {}: {error}; --cache-dir must be a folder that this user may write",
            path.display()
        ),
    )
}

/// Refuses what cannot fit before the first byte is written.
pub(crate) fn ensure_room(folder: &Path, needed: u64) -> Result<(), Failure> {
    match free_bytes(folder) {
        Some(free) if free < needed => Err(full(folder, Some(needed), "checked before writing")),
        _ => Ok(()),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn full(path: &Path, needed: Option<u64>, cause: &str) -> Failure {
    let needed = needed.map_or(String::new(), |n| format!(" for {}", size(n)));
    let free = free_bytes(path).map_or(String::new(), |f| format!(", {} are free", size(f)));
    Failure::new(
        Reason::OutOfSpace,
        format!(
            "no space{needed} at {}{free} ({cause}); {NEEDS}",
            path.display()
        ),
    )
}

fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|p| p.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes for a person: the exact number below 10 000, else three digits and a unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 10_000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_keep_three_digits() {
        let cases = [
            (0, "0 bytes"),
            (9_999, "9999 bytes"),
            (18_500_000, "17.6 MiB"),
            (20 << 30, "20.0 GiB"),
            (u64::MAX, "16777216 TiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_missing_file_and_a_forbidden_one_have_reasons_of_their_own() {
        let path = Path::new("/models/m.onnx");
        let of = |kind: io::ErrorKind| failure("read", path, &kind.into()).reason;
        assert_eq!(of(io::ErrorKind::NotFound), Reason::ModelNotFound);
        assert_eq!(of(io::ErrorKind::PermissionDenied), Reason::AccessDenied);
        assert_eq!(of(io::ErrorKind::StorageFull), Reason::OutOfSpace);
        assert_eq!(of(io::ErrorKind::QuotaExceeded), Reason::OutOfSpace);
    }

    #[test]
    fn more_than_the_disk_holds_is_refused_before_writing() {
        let here = std::env::temp_dir();
        let failure = ensure_room(&here, u64::MAX).unwrap_err();
        assert_eq!(failure.reason, Reason::OutOfSpace);
        assert!(failure.message.contains("are free"), "{failure}");
        assert!(ensure_room(&here.join("not/yet/there"), 1).is_ok());
    }
}
