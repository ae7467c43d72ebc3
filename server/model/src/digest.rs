//! SHA-256 of what was fetched, written `sha256:<64 hex digits>`.
//!
//! A file's digest is the digest of its bytes, as `sha256sum` prints it; a directory's is defined
//! in [`crate::tree`].

use std::{fmt, fs::File, io::Read, path::Path, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::failure::{Failure, Reason};

/// A SHA-256 digest. Shown as `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 64 hexadecimal digits without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::new(
                Reason::InvalidConfig,
                format!(
                    "{text:?} is no digest: write sha256: and 64 hexadecimal digits, as \
                     `sha256sum FILE` prints them"
                ),
            )
        };
        let hex = text.trim().strip_prefix("sha256:").ok_or_else(wrong)?;
        let mut bytes = [0; 32];
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// Computes a [`Digest`] while bytes go by.
#[derive(Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Digest and size of a file, read once with constant memory. `seen` hears of each piece and may stop it.
pub(crate) fn of_file(
    path: &Path,
    mut seen: impl FnMut(u64) -> std::io::Result<()>,
) -> std::io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::default();
    // 256 KiB: large enough that the system call does not count beside SHA-256 itself.
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((hasher.finish(), total));
        }
        hasher.update(&buffer[..n]);
        total += n as u64;
        seen(n as u64)?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_reads_back_as_it_is_shown_and_takes_upper_case() {
        let empty = Digest::of(b"");
        assert_eq!(empty.to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), empty);
        let upper = format!("sha256:{}", empty.hex().to_uppercase());
        assert_eq!(upper.parse::<Digest>().unwrap(), empty);
    }

    #[test]
    fn what_is_no_digest_is_refused_with_what_to_write() {
        for text in [
            "",
            "sha256:",
            "sha256:12",
            &EMPTY[7..],
            "md5:aa",
            &EMPTY[..70],
        ] {
            let failure = text.parse::<Digest>().unwrap_err();
            assert_eq!(failure.reason, Reason::InvalidConfig);
            assert!(
                failure.message.contains("64 hexadecimal digits"),
                "{failure}"
            );
        }
        let multibyte = format!("sha256:{}", "é".repeat(32));
        assert!(multibyte.parse::<Digest>().is_err());
    }
}
