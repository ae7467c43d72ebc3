//! Where a model lies: the schemes that this server reads, and nothing else.
//!
//! | written | means |
//! |---|---|
//! | `/path`, `path` | a file or directory, as the shell would find it |
//! | `file:///path` | the same, percent-encoded, absolute |
//! | `pvc://claim/path` | below the place where the claim is mounted (`--pvc-root`) |
//! | `http://…`, `https://…` | one file, fetched |
//!
//! Invariants: a claim is one path segment, a `pvc` path has no `..`, an `http` URL has a host, no
//! user name and no fragment. [`Display`](fmt::Display) never shows a URL's query: presigned URLs
//! carry their key there.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use url::Url;

use crate::failure::{Failure, Reason};

/// What works, as every refusal lists it.
const KNOWN: &str =
    "write http://HOST/PATH, https://HOST/PATH, pvc://CLAIM/PATH, file:///PATH or a path";

/// A model's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelUri {
    /// On this machine.
    File(PathBuf),
    /// On a PersistentVolumeClaim that is mounted into the pod.
    Pvc {
        /// The claim's name.
        claim: String,
        /// Relative to the volume's root; empty for the root itself.
        path: PathBuf,
    },
    /// One file on an HTTP server.
    Http(Url),
}

impl ModelUri {
    /// A name for the model: the last part of the path without its ending, in `[a-z0-9._-]`.
    #[must_use]
    pub fn default_name(&self) -> String {
        let last = match self {
            Self::File(path) => last_segment(path),
            Self::Pvc { claim, path } => last_segment(path).or_else(|| Some(claim.clone())),
            Self::Http(url) => url
                .path_segments()
                .and_then(|mut s| s.rfind(|p| !p.is_empty()))
                .map(decode),
        };
        name_from(last.as_deref().unwrap_or_default())
    }
}

fn last_segment(path: &Path) -> Option<String> {
    path.file_name().map(|n| n.to_string_lossy().into_owned())
}

fn name_from(segment: &str) -> String {
    const ENDINGS: [&str; 6] = [".onnx", ".tar.gz", ".tgz", ".tar.zst", ".tar", ".zip"];
    let lower = segment.to_lowercase();
    let stem = ENDINGS
        .iter()
        .find_map(|e| lower.strip_suffix(e))
        .unwrap_or(&lower);
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let name: String = stem
        .chars()
        .map(|c| if known(c) { c } else { '-' })
        .collect();
    let name = name.trim_matches(|c| "._-".contains(c));
    if name.is_empty() {
        "model".to_owned()
    } else {
        name.to_owned()
    }
}

impl fmt::Display for ModelUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Pvc { claim, path } => write!(f, "pvc://{claim}/{}", path.display()),
            Self::Http(url) => f.write_str(&shown(url)),
        }
    }
}

/// A URL without its query, which may be a key.
pub(crate) fn shown(url: &Url) -> String {
    let mut plain = url.clone();
    let had_query = plain.query().is_some();
    plain.set_query(None);
    format!("{plain}{}", if had_query { "?…" } else { "" })
}

impl FromStr for ModelUri {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        if text.trim().is_empty() {
            return Err(refuse(format!("the model's URI is empty; {KNOWN}")));
        }
        if text.chars().any(char::is_control) || text.trim() != text {
            return Err(refuse(format!(
                "the URI {text:?} holds control characters or spaces at its ends; {KNOWN}"
            )));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::File(PathBuf::from(text)));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => file(text, rest),
            "pvc" => pvc(text, rest),
            "http" | "https" => web(text),
            other => Err(refuse(format!(
                "the scheme {other:?} of {text:?} is not read; {KNOWN}"
            ))),
        }
    }
}

fn file(text: &str, rest: &str) -> Result<ModelUri, Failure> {
    if !rest.starts_with('/') {
        return Err(refuse(format!(
            "{text:?} names a host; a file URI has three slashes, file:///path, and a relative \
             path is written without file://"
        )));
    }
    Ok(ModelUri::File(PathBuf::from(decoded(text, rest)?)))
}

fn pvc(text: &str, rest: &str) -> Result<ModelUri, Failure> {
    let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !is_claim_name(claim) {
        return Err(refuse(format!(
            "{text:?} names no claim; write pvc://CLAIM/PATH with the PersistentVolumeClaim's name"
        )));
    }
    let path = decoded(text, path)?;
    let mut clean = PathBuf::new();
    for part in Path::new(path.trim_start_matches('/')).components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            _ => {
                return Err(refuse(format!(
                    "{text:?} leaves its claim with `..`; write a path below the claim's root"
                )));
            }
        }
    }
    Ok(ModelUri::Pvc {
        claim: claim.to_owned(),
        path: clean,
    })
}

/// RFC 1123 subdomain, as Kubernetes names claims.
fn is_claim_name(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn web(text: &str) -> Result<ModelUri, Failure> {
    let mut url =
        Url::parse(text).map_err(|e| refuse(format!("{text:?} is no URL ({e}); {KNOWN}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        url.set_username("").ok();
        url.set_password(None).ok();
        return Err(refuse(format!(
            "the URI {} carries a user name or a password; put them into a Secret and name it in \
             credentialsSecretRef (--credentials-dir outside a cluster)",
            shown(&url)
        )));
    }
    url.set_fragment(None);
    Ok(ModelUri::Http(url))
}

fn refuse(sentence: String) -> Failure {
    Failure::new(Reason::UnsupportedUri, sentence)
}

fn decoded(text: &str, path: &str) -> Result<String, Failure> {
    percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .ok()
        .filter(|p| !p.chars().any(char::is_control))
        .map(|p| p.into_owned())
        .ok_or_else(|| {
            refuse(format!(
                "the path of {text:?} is not percent-encoded UTF-8 text"
            ))
        })
}

fn decode(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment)
        .decode_utf8_lossy()
        .into_owned()
}
