//! What a file is, by its first bytes. Names lie: a store answers HTML with status 200, a
//! `.tar.gz` may have been unpacked by a proxy.

use crate::failure::{Failure, Reason};

/// As much of a file's start as [`kind`] looks at: one tar header.
pub(crate) const HEAD: usize = 512;

/// An archive's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Archive {
    Tar,
    TarGz,
    TarZst,
    Zip,
}

/// What was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Taken as an ONNX model: the runtime has the last word.
    Bare,
    Archive(Archive),
}

/// Decides by the first [`HEAD`] bytes (fewer when the file is shorter). `name` is where the file
/// came from: it only makes sentences better and refuses a `.zip` that is none.
pub(crate) fn kind(name: &str, head: &[u8]) -> Result<Kind, Failure> {
    if head.is_empty() {
        return Err(invalid(format!("{name} is empty, not a model")));
    }
    if let Some(archive) = archive(head) {
        return Ok(Kind::Archive(archive));
    }
    if let Some(what) = foreign_archive(head) {
        return Err(refused(format!(
            "{name} is {what}; pack the model as .tar, .tar.gz, .tar.zst or .zip"
        )));
    }
    if is_html(head) {
        return Err(invalid(format!(
            "the store answered an HTML page, not a model, for {name}: often a login or an error \
             page; open the URI without a browser's session and give the address of the file itself"
        )));
    }
    if head.starts_with(b"version https://git-lfs") {
        return Err(invalid(format!(
            "{name} is a Git LFS pointer, not the model; give the address of the file that it \
             points to, or run `git lfs pull`"
        )));
    }
    if starts_with_ignore_case(text_start(head), b"<?xml") {
        return Err(invalid(format!(
            "the store answered an XML document, not a model, for {name}: often an error message"
        )));
    }
    if let Some(ending) = archive_ending(name) {
        return Err(refused(format!(
            "{name} ends in {ending}, but its content is no such archive: broken, or packed \
             otherwise than it says"
        )));
    }
    Ok(Kind::Bare)
}

fn archive(head: &[u8]) -> Option<Archive> {
    if head.starts_with(&[0x1f, 0x8b]) {
        Some(Archive::TarGz)
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Some(Archive::TarZst)
    } else if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        Some(Archive::Zip)
    } else if is_tar(head) {
        Some(Archive::Tar)
    } else {
        None
    }
}

/// A POSIX or GNU header says `ustar`; an older one is known by its checksum.
pub(crate) fn is_tar(head: &[u8]) -> bool {
    if head.len() < HEAD {
        return false;
    }
    if &head[257..262] == b"ustar" {
        return true;
    }
    let field = &head[148..156];
    let stored = std::str::from_utf8(field)
        .ok()
        .map(|t| t.trim_matches([' ', '\0']))
        .and_then(|t| u32::from_str_radix(t, 8).ok());
    let others = head[..148].iter().chain(&head[156..HEAD]);
    // The checksum counts its own field as eight spaces. An all-zero block is no header.
    let sum: u32 = others.map(|b| u32::from(*b)).sum::<u32>() + 8 * u32::from(b' ');
    stored == Some(sum) && sum > 8 * u32::from(b' ')
}

fn foreign_archive(head: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 5] = [
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!\x1a\x07", "a RAR archive"),
        (b"BZh", "compressed with bzip2"),
        (b"\xfd7zXZ\x00", "compressed with xz"),
        (b"\x04\x22\x4d\x18", "compressed with lz4"),
    ];
    KNOWN
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|(_, what)| *what)
}

fn archive_ending(name: &str) -> Option<&'static str> {
    let name = name.split('?').next().unwrap_or(name).to_ascii_lowercase();
    [".tar.gz", ".tgz", ".tar.zst", ".tar", ".zip"]
        .into_iter()
        .find(|e| name.ends_with(e))
}

/// A page, seen at its start.
fn is_html(head: &[u8]) -> bool {
    let start = text_start(head);
    [&b"<!doctype html"[..], b"<html", b"<head", b"<body"]
        .iter()
        .any(|tag| starts_with_ignore_case(start, tag))
}

/// Without a byte order mark, spaces and comments.
fn text_start(head: &[u8]) -> &[u8] {
    let mut rest = head
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start();
    while rest.starts_with(b"<!--") {
        let Some(end) = rest.windows(3).position(|w| w == b"-->") else {
            break;
        };
        rest = rest[end + 3..].trim_ascii_start();
    }
    rest
}

fn starts_with_ignore_case(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes
        .get(..prefix.len())
        .is_some_and(|b| b.eq_ignore_ascii_case(prefix))
}

fn invalid(sentence: String) -> Failure {
    Failure::new(Reason::InvalidModel, sentence)
}

fn refused(sentence: String) -> Failure {
    Failure::new(Reason::ArchiveRefused, sentence)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn archives_are_known_by_their_first_bytes_whatever_the_name() {
        let mut tar = vec![0; HEAD];
        tar[257..262].copy_from_slice(b"ustar");
        let cases: [(&[u8], Archive); 4] = [
            (b"\x1f\x8b\x08\x00rest", Archive::TarGz),
            (b"\x28\xb5\x2f\xfdrest", Archive::TarZst),
            (b"PK\x03\x04rest", Archive::Zip),
            (&tar, Archive::Tar),
        ];
        for (head, archive) in cases {
            assert_eq!(kind("model.onnx", head), Ok(Kind::Archive(archive)));
        }
    }

    #[test]
    fn a_tar_from_before_posix_is_known_by_its_checksum() {
        let mut header = vec![0; HEAD];
        header[..10].copy_from_slice(b"model.onnx");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(is_tar(&header));
        header[0] ^= 1;
        assert!(!is_tar(&header));
        assert!(!is_tar(&[0; HEAD]));
    }

    #[test]
    fn what_a_store_answers_instead_of_a_model_is_named() {
        let cases: [(&[u8], Reason, &str); 8] = [
            (b"", Reason::InvalidModel, "empty"),
            (b"<!DOCTYPE html><html>", Reason::InvalidModel, "HTML page"),
            (
                b"\xef\xbb\xbf\n <!-- x --> <HTML>",
                Reason::InvalidModel,
                "HTML page",
            ),
            (b"<?xml version='1.0'?><Error>", Reason::InvalidModel, "XML"),
            (
                b"version https://git-lfs.github.com/spec/v1",
                Reason::InvalidModel,
                "Git LFS",
            ),
            (b"7z\xbc\xaf\x27\x1c....", Reason::ArchiveRefused, "7z"),
            (b"BZh91AY", Reason::ArchiveRefused, "bzip2"),
            (b"\x08\x08onnx", Reason::ArchiveRefused, "ends in .tar.gz"),
        ];
        for (head, reason, words) in cases {
            let failure = kind("http://store/m.tar.gz", head).unwrap_err();
            assert_eq!(failure.reason, reason, "{failure}");
            assert!(failure.message.contains(words), "{failure}");
        }
        assert_eq!(kind("http://store/m.onnx", b"\x08\x08onnx"), Ok(Kind::Bare));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(head in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = kind("m.onnx", &head);
        }
    }
}
