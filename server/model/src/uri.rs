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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> ModelUri {
        text.parse().unwrap()
    }

    #[test]
    fn every_scheme_that_works_reads_back_as_it_is_shown() {
        let cases = [
            ("/models/m.onnx", ModelUri::File("/models/m.onnx".into())),
            ("m.onnx", ModelUri::File("m.onnx".into())),
            ("../a:b.onnx", ModelUri::File("../a:b.onnx".into())),
            ("pvc://claim/a/b.onnx", pvc_uri("claim", "a/b.onnx")),
            ("pvc://my.claim-1/", pvc_uri("my.claim-1", "")),
            (
                "http://store:8080/m.onnx",
                ModelUri::Http("http://store:8080/m.onnx".parse().unwrap()),
            ),
            (
                "https://[::1]/m.onnx",
                ModelUri::Http("https://[::1]/m.onnx".parse().unwrap()),
            ),
        ];
        for (text, uri) in cases {
            assert_eq!(read(text), uri);
            assert_eq!(uri.to_string(), text);
        }
        assert_eq!(
            read("file:///a%20b/m.onnx"),
            ModelUri::File("/a b/m.onnx".into())
        );
        assert_eq!(read("FILE:///m.onnx"), ModelUri::File("/m.onnx".into()));
        assert_eq!(read("pvc://claim"), pvc_uri("claim", ""));
        assert_eq!(read("pvc://claim//./a//b"), pvc_uri("claim", "a/b"));
        assert_eq!(read("pvc://claim/a%20b"), pvc_uri("claim", "a b"));
    }

    fn pvc_uri(claim: &str, path: &str) -> ModelUri {
        ModelUri::Pvc {
            claim: claim.to_owned(),
            path: path.into(),
        }
    }

    #[test]
    fn what_does_not_work_is_refused_with_what_does() {
        let cases = [
            ("", "is empty"),
            ("  ", "is empty"),
            (" /m.onnx", "spaces at its ends"),
            ("/m\n.onnx", "control characters"),
            ("s3://bucket/m.onnx", "the scheme \"s3\""),
            ("://x", "the scheme \"\""),
            ("file://host/m.onnx", "three slashes"),
            ("file:///%00", "percent-encoded"),
            ("file:///%ff", "percent-encoded"),
            ("pvc:///m.onnx", "names no claim"),
            ("pvc://Claim/m.onnx", "names no claim"),
            ("pvc://-claim/m.onnx", "names no claim"),
            ("pvc://claim/../other/m.onnx", "leaves its claim"),
            ("pvc://claim/a/%2e%2e/b", "leaves its claim"),
            ("http://", "is no URL"),
            ("http://a b/m.onnx", "is no URL"),
            ("http://store:99999/m.onnx", "is no URL"),
            (
                "https://ann:s3cret@store/m.onnx",
                "carries a user name or a password",
            ),
        ];
        for (text, words) in cases {
            let failure = text.parse::<ModelUri>().unwrap_err();
            assert_eq!(failure.reason, Reason::UnsupportedUri);
            assert!(failure.message.contains(words), "{text:?}: {failure}");
            assert!(!failure.message.contains("s3cret"), "{failure}");
        }
        let listed = "gs://b/m".parse::<ModelUri>().unwrap_err().message;
        for works in ["http://", "https://", "pvc://", "file:///", "a path"] {
            assert!(listed.contains(works), "{listed}");
        }
    }

    #[test]
    fn a_query_is_kept_for_the_store_and_never_shown() {
        let uri = read("https://store/m.onnx?X-Amz-Signature=s3cret#part");
        assert_eq!(uri.to_string(), "https://store/m.onnx?…");
        let ModelUri::Http(url) = uri else {
            panic!("no URL")
        };
        assert_eq!(url.query(), Some("X-Amz-Signature=s3cret"));
    }

    #[test]
    fn a_model_is_named_after_its_file() {
        let cases = [
            ("/models/EfficientNet Lite0.onnx", "efficientnet-lite0"),
            (
                "http://store/a/efficientnet.tar.gz?x=y.onnx",
                "efficientnet",
            ),
            ("http://store/a%20b.ONNX", "a-b"),
            ("http://store/models/v3/", "v3"),
            ("http://store/", "model"),
            ("http://store", "model"),
            ("pvc://claim/resnet.v2.tar.zst", "resnet.v2"),
            ("pvc://claim", "claim"),
            ("/", "model"),
            ("..", "model"),
            ("été.onnx", "t"),
        ];
        for (uri, name) in cases {
            assert_eq!(read(uri).default_name(), name, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_read_keeps_its_promises(text in "\\PC{0,60}") {
            if let Ok(uri) = text.parse::<ModelUri>() {
                check(&uri)?;
            }
        }

        #[test]
        fn no_claim_path_leads_out(path in "([a./%2eE\\\\-]|\\.\\./){0,30}") {
            if let Ok(uri) = format!("pvc://claim/{path}").parse::<ModelUri>() {
                check(&uri)?;
            }
        }

        #[test]
        fn http_urls_of_any_shape_are_read_or_refused(rest in "[a-z0-9:/@?#%.\\[\\]-]{0,40}") {
            if let Ok(uri) = format!("http://{rest}").parse::<ModelUri>() {
                check(&uri)?;
            }
        }
    }

    fn check(uri: &ModelUri) -> Result<(), TestCaseError> {
        let name = uri.default_name();
        prop_assert!(!name.is_empty());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        prop_assert!(name.chars().all(plain), "{}", name);
        match uri {
            ModelUri::File(_) => {}
            ModelUri::Pvc { path, .. } => {
                let stays = path.components().all(|c| matches!(c, Component::Normal(_)));
                prop_assert!(stays, "{:?}", path);
            }
            ModelUri::Http(url) => {
                prop_assert!(
                    url.has_host() && url.username().is_empty() && url.password().is_none()
                );
                prop_assert!(url.fragment().is_none());
            }
        }
        Ok(())
    }
}
