//! Whether a path in an archive may be written below a folder of ours.
//!
//! Input: the bytes as the archive has them. Output: a path made of plain names only, so that
//! joining it to a folder stays in that folder; `None` for the folder itself.

use super::Refusal;
use crate::tree::MAX_DEPTH;

/// What file systems take.
const MAX_NAME: usize = 255;

/// A path that is safe to join, or the reason why there is none.
pub(crate) fn safe(raw: &[u8]) -> Result<Option<String>, Refusal> {
    let shown = String::from_utf8_lossy(raw);
    let Ok(text) = std::str::from_utf8(raw) else {
        return Err(Refusal(format!(
            "holds a name that is not UTF-8: {shown:?}"
        )));
    };
    if text.starts_with('/') {
        return Err(Refusal(format!(
            "holds the absolute path {text:?}; pack with relative paths, for example \
             tar czf m.tar.gz -C FOLDER ."
        )));
    }
    if text.contains('\\') || text.chars().any(char::is_control) {
        return Err(Refusal(format!(
            "holds the name {text:?}; names with backslashes or control characters are refused"
        )));
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                return Err(Refusal(format!(
                    "holds the path {text:?}, which leaves its folder with `..`"
                )));
            }
            _ if part.len() > MAX_NAME => {
                return Err(Refusal(format!("holds a name of {} bytes", part.len())));
            }
            _ => parts.push(part),
        }
        if parts.len() > MAX_DEPTH {
            return Err(Refusal(format!(
                "holds a path of more than {MAX_DEPTH} folders"
            )));
        }
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_paths_pass_and_dots_and_double_slashes_vanish() {
        let cases = [
            ("model.onnx", Some("model.onnx")),
            ("./net//model.onnx", Some("net/model.onnx")),
            ("net/", Some("net")),
            ("...", Some("...")),
            ("./", None),
            ("", None),
        ];
        for (raw, path) in cases {
            assert_eq!(safe(raw.as_bytes()).unwrap().as_deref(), path, "{raw}");
        }
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused_by_name() {
        let cases: [(&[u8], &str); 7] = [
            (b"../evil", "`..`"),
            (b"a/../../evil", "`..`"),
            (b"a/..", "`..`"),
            (b"/etc/passwd", "absolute"),
            (b"a\\..\\evil", "backslashes"),
            (b"a\0b", "control characters"),
            (b"\xff", "UTF-8"),
        ];
        for (raw, words) in cases {
            let refusal = safe(raw).unwrap_err();
            assert!(refusal.0.contains(words), "{refusal:?}");
        }
        assert!(safe("a/".repeat(33).as_bytes()).is_err());
        assert!(safe("a".repeat(256).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_passes_stays_in_its_folder(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(Some(path)) = safe(&raw) {
                let path = Path::new(&path);
                prop_assert!(path.components().all(|c| matches!(c, Component::Normal(_))));
                let path = Path::new(&path);
                prop_assert!(path.components().count() > 0);
            }
        }

        #[test]
        fn any_mixture_of_dots_and_slashes_is_safe_or_refused(
            parts in proptest::collection::vec(prop_oneof![Just(".."), Just("."), Just(""), Just("a"), Just("/")], 0..12)
        ) {
            let raw = parts.join("/");
            match safe(raw.as_bytes()) {
                Ok(path) => {
                    prop_assert!(!raw.split('/').any(|p| p == ".."));
                    prop_assert!(!raw.starts_with('/'));
                    let kept = path.map_or(0, |p| Path::new(&p).components().count());
                    prop_assert_eq!(kept, raw.split('/').filter(|p| *p == "a").count());
                }
                Err(_) => prop_assert!(raw.starts_with('/') || raw.split('/').any(|p| p == "..")),
            }
        }
    }
}
