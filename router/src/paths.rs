//! What a request wants of a service, by its path: enough to know whether it wakes one, which version it means, and
//! whether it may pass at all.
//!
//! Paths are read as a lenient server would read them, `%XX` undone and empty segments left out, so that nothing
//! slips past by another spelling; they are forwarded as they came.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

const GRPC: &str = "inference.GRPCInferenceService";
const HEALTH: &str = "grpc.health.v1.Health";

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Whether the service lives or is ready: at zero pods the router says yes, since the service wakes.
    Health,
    /// Numbers of the pod: nobody is woken for them.
    Metrics,
    /// To load or unload models: never from outside.
    Management,
    /// All else: it wakes the service.
    Work,
}

/// What a path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning<'a> {
    /// What the request is for.
    pub purpose: Purpose,
    /// The version of the model that it names.
    pub version: Option<Cow<'a, str>>,
}

impl Meaning<'_> {
    const fn only(purpose: Purpose) -> Self {
        Self {
            purpose,
            version: None,
        }
    }
}

/// Of a path of REST, without the query.
#[must_use]
pub fn rest(path: &str) -> Meaning<'_> {
    let is_plain = !path.bytes().any(|byte| byte == b'%');
    let decoded = |segment| {
        if is_plain {
            return Cow::Borrowed(segment);
        }
        percent_decode_str(segment)
            .decode_utf8()
            .unwrap_or(Cow::Borrowed(segment))
    };
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let mut segments = segments.filter(|segment| *segment != ".").map(decoded);
    // The longest path that means something to the router has six segments; one more tells a longer one apart.
    let mut first: [Cow<'_, str>; 7] = Default::default();
    let mut count = 0;
    for (place, segment) in first.iter_mut().zip(&mut segments) {
        *place = segment;
        count += 1;
    }
    let words: [&str; 7] = std::array::from_fn(|i| &*first[i]);
    let purpose = match &words[..count] {
        ["v2", "health", "live" | "ready"]
        | ["healthz", "live" | "ready"]
        | ["v2", "models", _, "ready"]
        | ["v2", "models", _, "versions", _, "ready"] => Purpose::Health,
        ["metrics"] => Purpose::Metrics,
        ["v2", "repository", "models", _, "load" | "unload"] => Purpose::Management,
        _ => Purpose::Work,
    };
    let has_version = matches!(words[..count], ["v2", "models", _, "versions", _, ..]);
    Meaning {
        purpose,
        version: has_version.then(|| std::mem::take(&mut first[4])),
    }
}

/// Whether a `POST` to this path, of the newest version, is answered with what a model says, the same for the same
/// request.
#[must_use]
pub fn is_comparable(path: &str) -> bool {
    let mut segments = path.trim_start_matches('/').split('/');
    let words = [(); 5].map(|()| segments.next());
    match words {
        [Some("v2"), Some("models"), Some(_), Some("infer"), None]
        | [Some("predict"), Some(_), None, None, None]
        | [Some("v1"), Some("embeddings"), None, None, None] => true,
        [Some("v1"), Some("models"), Some(verb), None, None] => verb.ends_with(":predict"),
        _ => false,
    }
}

/// Of a path of gRPC, `/package.Service/Method`. The version of a call stands in its message, which is not read.
#[must_use]
pub fn grpc(path: &str) -> Meaning<'static> {
    let mut parts = path.trim_start_matches('/').split('/');
    let (service, method) = (parts.next(), parts.next());
    Meaning::only(match (service, method) {
        (Some(GRPC), Some("ServerLive" | "ServerReady" | "ModelReady"))
        | (Some(HEALTH), Some("Check")) => Purpose::Health,
        (Some(GRPC), Some("RepositoryModelLoad" | "RepositoryModelUnload")) => Purpose::Management,
        _ => Purpose::Work,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_rest_mean_what_they_say_in_every_spelling() {
        use Purpose::{Health, Management, Metrics, Work};
        for (path, purpose, version) in [
            ("/v2", Work, None),
            ("/v2/health/live", Health, None),
            ("/v2/health/ready/", Health, None),
            ("/healthz/ready", Health, None),
            ("/healthz/startup", Work, None),
            ("/v2/models/m", Work, None),
            ("/v2/models/m/ready", Health, None),
            ("/v2/models/m/infer", Work, None),
            ("/v2/models/m/config", Work, None),
            ("/v2/models/m/versions/3", Work, Some("3")),
            ("/v2/models/m/versions/3/infer", Work, Some("3")),
            ("/v2/models/m/versions/3/ready", Health, Some("3")),
            ("/v2/models/m/versions/3%2e1/infer", Work, Some("3.1")),
            ("//v2/./models/m/%76ersions/3/infer", Work, Some("3")),
            ("/v2/models/m/versions", Work, None),
            ("/v2/models/m/versions/3/ready/x", Work, Some("3")),
            ("/v2/models/m/versions/3/a/b/c/d", Work, Some("3")),
            ("/metrics", Metrics, None),
            ("/v2/repository/index", Work, None),
            ("/v2/repository/models/m/load", Management, None),
            ("/v2//repository/models/m/%6coad", Management, None),
            ("/v2/repository/models/a%2Fb/unload/", Management, None),
            ("/v1/models/m:predict", Work, None),
            ("/", Work, None),
            ("", Work, None),
            ("*", Work, None),
        ] {
            let seen = rest(path);
            assert_eq!(
                (seen.purpose, seen.version.as_deref()),
                (purpose, version),
                "{path}"
            );
        }
    }

    #[test]
    fn calls_of_grpc_mean_what_their_names_say() {
        for (path, purpose) in [
            (
                "/inference.GRPCInferenceService/ServerLive",
                Purpose::Health,
            ),
            (
                "/inference.GRPCInferenceService/ModelReady",
                Purpose::Health,
            ),
            ("/grpc.health.v1.Health/Check", Purpose::Health),
            ("/grpc.health.v1.Health/Watch", Purpose::Work),
            ("/inference.GRPCInferenceService/ModelInfer", Purpose::Work),
            (
                "/inference.GRPCInferenceService/RepositoryModelLoad",
                Purpose::Management,
            ),
            (
                "//inference.GRPCInferenceService/RepositoryModelUnload",
                Purpose::Management,
            ),
            ("/other.Service/ServerLive", Purpose::Work),
            ("/", Purpose::Work),
        ] {
            assert_eq!(grpc(path).purpose, purpose, "{path}");
        }
    }

    #[test]
    fn answers_to_these_paths_are_compared() {
        for (path, is) in [
            ("/v2/models/m/infer", true),
            ("/v1/models/m:predict", true),
            ("/predict/m", true),
            ("/v1/embeddings", true),
            ("/v2/models/m/versions/3/infer", false),
            ("/v2/models/m/infer/x", false),
            ("/v2/models/m", false),
            ("/v2/models/m/generate", false),
            ("/v1/models/m", false),
            ("/predict", false),
            ("/", false),
        ] {
            assert_eq!(is_comparable(path), is, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "/?.{0,80}") {
            let _ = (rest(&path), grpc(&path));
        }
    }
}
