//! What CEL cannot say: defaults are filled in, and what cannot work is refused with a sentence.

use std::{collections::BTreeMap, time::Duration};

pub use ortolan_crds::parse_duration;
use ortolan_crds::{InferenceService, Pipeline, Pod, Provider, Sessions, names};
use serde::Serialize;

use crate::{
    revision::Template,
    rollout::{self, Policy, spec::Splitter},
    routing::{self, REQUEST_TIMEOUT},
};

/// What the platform chose, by chart values or flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// The server's image for each provider.
    pub images: BTreeMap<Provider, String>,
    /// The pull policy of the server's image, when not Kubernetes' own default.
    pub image_pull_policy: Option<String>,
    /// The full name of the routers' Service; without one the Services select the pods themselves.
    pub router: Option<String>,
}

/// How long a pod serves on after it was told to end.
pub const DRAIN_DELAY: Duration = Duration::from_secs(5);
/// What is left for the process to end.
const END: Duration = Duration::from_secs(5);
/// The memory that a model's pod may use when nothing is said.
pub(crate) const DEFAULT_MEMORY_LIMIT: &str = "1Gi";

/// The kernel takes no argument of more than 128 KiB, and the dollars in this one are doubled.
const MAX_MODEL_CONFIG: usize = 64 << 10;

/// A device that a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The extended resource.
    pub resource: String,
    /// How many.
    pub count: i32,
}

/// A spec that can be built: the only input of the builders beside the names.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// The InferenceService's name.
    pub service: String,
    /// What the user wrote.
    pub template: Template,
    /// The server's image.
    pub image: String,
    /// Its pull policy.
    pub image_pull_policy: Option<String>,
    /// The execution provider.
    pub provider: Provider,
    /// The device, if any.
    pub device: Option<Device>,
    /// `auto` or a number.
    pub sessions: String,
    /// The model's name in the protocol.
    pub model_name: String,
    /// The user's pipeline as a `model.yaml`. An argument of the server's carries it to the pod: a ConfigMap would be a
    /// second object that the revision's identity hangs on, and that somebody can edit under a pod that restarts.
    pub model_config: Option<String>,
    /// From the signal to the kill.
    pub termination_grace: Duration,
    /// How a new revision takes over.
    pub policy: Policy,
}

/// A spec that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No image for the provider.
    #[error(
        "the platform has no server image for the provider {0}: set the chart's images.server.{lower}, or write server.image",
        lower = .0.to_lowercase()
    )]
    NoImage(&'static str),
    /// A duration that cannot be read.
    #[error("pod.terminationGracePeriod is {0:?}: write a duration such as 45s or 2m30s")]
    Duration(String),
    /// Shorter than the drain.
    #[error(
        "pod.terminationGracePeriod is {0:?}: write at least 15s, since a pod serves on for 5s while it leaves the Service"
    )]
    TooShort(String),
    /// Shorter than what a pod may still work on.
    #[error(
        "pod.terminationGracePeriod is {grace:?} and routing.timeout {timeout:?}: a pod that ends needs that and 10s more for what it works on; write a longer terminationGracePeriod, or leave it out"
    )]
    ShorterThanRequests {
        /// The grace period.
        grace: String,
        /// How long a request may take.
        timeout: String,
    },
    /// More than an argument holds.
    #[error(
        "server.pipeline takes {0} bytes, and at most {MAX_MODEL_CONFIG} fit into a pod: name fewer columns, or write the pipeline into a model.yaml in the model's archive"
    )]
    PipelineTooLong(usize),
    /// A rollout that the platform cannot do.
    #[error(transparent)]
    Rollout(#[from] rollout::spec::Invalid),
    /// A way of routing that the platform cannot do.
    #[error(transparent)]
    Routing(#[from] routing::Invalid),
    /// A name that Kubernetes refuses for a Service.
    #[error(
        "metadata.name {0:?} is no DNS-1035 label of at most 50 characters: write lower-case letters, digits and '-', beginning with a letter"
    )]
    Name(String),
}

/// Fills in what the user left out.
///
/// # Errors
/// [`Invalid`], for what no schema refuses (an image that the platform lacks) or what an older schema
/// let through.
pub fn validate(service: &InferenceService, defaults: &Defaults) -> Result<Validated, Invalid> {
    let name = service.metadata.name.clone().unwrap_or_default();
    if !is_service_name(&name) {
        return Err(Invalid::Name(name));
    }
    let splitter = Splitter::of(&service.spec, defaults.router.is_some());
    let template = Template::of(&service.spec);
    let server = template.server.clone().unwrap_or_default();
    let accelerator = server.accelerator.clone().unwrap_or_default();
    let device = accelerator.resource.clone().map(|resource| Device {
        resource,
        count: accelerator.count.unwrap_or(1),
    });
    let provider = accelerator
        .provider
        .unwrap_or_else(|| provider_of(device.as_ref()));
    let image = server
        .image
        .clone()
        .or_else(|| defaults.images.get(&provider).cloned())
        .ok_or(Invalid::NoImage(provider.as_str()))?;
    let sessions = match &server.sessions {
        Some(Sessions::Count(n)) => n.to_string(),
        _ if device.is_some() => "1".into(),
        _ => "auto".into(),
    };
    let termination_grace = termination_grace(
        template.pod.as_ref(),
        routing::timeout(&service.spec, splitter)?,
    )?;
    let model_name = template.model.name.clone().unwrap_or_else(|| name.clone());
    let model_config = server.pipeline.as_ref().map(model_config);
    if let Some(text) = &model_config
        && text.len() > MAX_MODEL_CONFIG
    {
        return Err(Invalid::PipelineTooLong(text.len()));
    }
    Ok(Validated {
        service: name,
        template,
        image,
        image_pull_policy: defaults.image_pull_policy.clone(),
        provider,
        device,
        sessions,
        model_name,
        model_config,
        termination_grace,
        policy: rollout::spec::policy(&service.spec, splitter)?,
    })
}

/// From the signal to the kill. `timeout`: how long a request may take, if the user said so.
fn termination_grace(pod: Option<&Pod>, timeout: Option<Duration>) -> Result<Duration, Invalid> {
    let Some(text) = pod.and_then(|pod| pod.termination_grace_period.as_ref()) else {
        return Ok(DRAIN_DELAY + timeout.unwrap_or(REQUEST_TIMEOUT) + END * 2);
    };
    let grace = parse_duration(text).ok_or_else(|| Invalid::Duration(text.clone()))?;
    if grace < DRAIN_DELAY + END * 2 {
        return Err(Invalid::TooShort(text.clone()));
    }
    match timeout {
        Some(timeout) if grace < DRAIN_DELAY + timeout + END => Err(Invalid::ShorterThanRequests {
            grace: text.clone(),
            timeout: format!("{}s", timeout.as_secs()),
        }),
        _ => Ok(grace),
    }
}

impl Validated {
    /// What is left for requests in flight, after the drain delay and before the kill.
    #[must_use]
    pub fn finish_within(&self) -> Duration {
        self.termination_grace.saturating_sub(DRAIN_DELAY + END)
    }
}

/// JSON is YAML, on one line; the fields stand as the types have them, whatever `serde_json` does to a map.
fn model_config(pipeline: &Pipeline) -> String {
    #[derive(Serialize)]
    struct ModelConfig<'a> {
        pipeline: &'a Pipeline,
    }
    serde_json::to_string(&ModelConfig { pipeline })
        .expect("a pipeline holds strings, numbers and lists")
}

/// `nvidia.com/*` means CUDA; any other device, or none, leaves the model on the CPU.
fn provider_of(device: Option<&Device>) -> Provider {
    match device {
        Some(device) if device.resource.starts_with("nvidia.com/") => Provider::CUDA,
        _ => Provider::CPU,
    }
}

fn is_service_name(name: &str) -> bool {
    name.len() <= names::MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use ortolan_crds::InferenceServiceSpec;
    use serde_json::{Value, json};

    use super::*;

    fn validated(name: &str, spec: Value) -> Result<Validated, Invalid> {
        let spec: InferenceServiceSpec = serde_json::from_value(spec).expect("a spec");
        let defaults = Defaults {
            images: BTreeMap::from([(Provider::CPU, "cpu:1".into())]),
            ..Defaults::default()
        };
        validate(&InferenceService::new(name, spec), &defaults)
    }

    fn spec(server: Value, pod: Value) -> Value {
        json!({"model": {"uri": "https://a/m.onnx"}, "server": server, "pod": pod})
    }

    #[test]
    fn four_lines_are_enough() {
        let v = validated("m", json!({"model": {"uri": "https://a/m.onnx"}})).expect("valid");
        assert_eq!(
            (v.image.as_str(), v.provider, v.sessions.as_str()),
            ("cpu:1", Provider::CPU, "auto")
        );
        assert_eq!(
            (v.model_name.as_str(), v.termination_grace.as_secs()),
            ("m", 45)
        );
        assert_eq!(v.finish_within().as_secs(), 35);
    }

    #[test]
    fn the_provider_follows_from_the_resource_and_chooses_the_image() {
        let gpu = json!({"accelerator": {"resource": "nvidia.com/mig-1g.10gb"}});
        assert_eq!(
            validated("m", spec(gpu, json!({}))),
            Err(Invalid::NoImage("CUDA"))
        );
        let own = json!({"image": "mine", "accelerator": {"resource": "nvidia.com/gpu"}});
        let v = validated("m", spec(own, json!({}))).expect("valid");
        assert_eq!(
            (v.image.as_str(), v.provider, v.sessions.as_str()),
            ("mine", Provider::CUDA, "1")
        );
        let cpu =
            json!({"accelerator": {"resource": "nvidia.com/gpu", "count": 2, "provider": "CPU"}});
        let v = validated("m", spec(cpu, json!({}))).expect("valid");
        assert_eq!(
            v.device,
            Some(Device {
                resource: "nvidia.com/gpu".into(),
                count: 2
            })
        );
        assert_eq!((v.image.as_str(), v.provider), ("cpu:1", Provider::CPU));
        let amd = json!({"accelerator": {"resource": "amd.com/gpu"}});
        assert_eq!(
            validated("m", spec(amd, json!({})))
                .expect("valid")
                .provider,
            Provider::CPU
        );
    }

    #[test]
    fn a_missing_image_says_which_value_to_set() {
        assert_eq!(
            Invalid::NoImage("CUDA").to_string(),
            "the platform has no server image for the provider CUDA: set the chart's images.server.cuda, or write server.image"
        );
    }

    #[test]
    fn a_pipeline_must_fit_into_an_argument() {
        let with = |columns: usize| {
            let columns: Vec<Value> = (0..columns)
                .map(|n| json!({"name": format!("{n:0>200}")}))
                .collect();
            let input = json!({"kind": "rows", "columns": columns});
            let server = json!({"pipeline": {"input": input, "output": {"kind": "raw"}}});
            validated("m", spec(server, json!({})))
        };
        let text = with(2).expect("valid").model_config.expect("a pipeline");
        assert!(text.starts_with(r#"{"pipeline":{"input":{"kind":"rows","columns":[{"name":"0"#));
        assert!(with(300).is_ok());
        let refused = with(400).expect_err("too long");
        assert!(matches!(refused, Invalid::PipelineTooLong(_)), "{refused}");
        assert!(refused.to_string().contains("at most 65536 fit"));
    }

    #[test]
    fn the_grace_period_holds_the_drain() {
        for (text, expected) in [
            ("14s", Err(Invalid::TooShort("14s".into()))),
            ("15s", Ok(15)),
            ("1m30s", Ok(90)),
            ("1h", Ok(3600)),
            ("1d", Err(Invalid::Duration("1d".into()))),
            ("", Err(Invalid::Duration(String::new()))),
            ("s", Err(Invalid::Duration("s".into()))),
        ] {
            let got = validated(
                "m",
                spec(json!({}), json!({"terminationGracePeriod": text})),
            )
            .map(|v| v.termination_grace.as_secs());
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn the_grace_period_follows_from_how_long_a_request_may_take() {
        let with = |timeout: &str, pod: Value| {
            let mut spec = spec(json!({}), pod);
            spec["routing"] = json!({"timeout": timeout});
            let spec: InferenceServiceSpec = serde_json::from_value(spec).expect("a spec");
            let defaults = Defaults {
                images: BTreeMap::from([(Provider::CPU, "cpu:1".into())]),
                router: Some("routers".into()),
                ..Defaults::default()
            };
            validate(&InferenceService::new("m", spec), &defaults)
        };
        for (timeout, seconds) in [("1s", 16), ("30s", 45), ("2m", 135)] {
            let grace = with(timeout, json!({})).map(|v| v.termination_grace.as_secs());
            assert_eq!(grace, Ok(seconds), "{timeout}");
        }
        let written = |text: &str| json!({"terminationGracePeriod": text});
        assert!(with("30s", written("40s")).is_ok());
        assert!(with("5s", written("1h")).is_ok());
        let refused = with("30s", written("39s")).expect_err("too short");
        assert!(
            refused
                .to_string()
                .contains("\"39s\" and routing.timeout \"30s\""),
            "{refused}"
        );
    }

    #[test]
    fn names_that_an_older_schema_let_through_are_refused() {
        let model = || json!({"model": {"uri": "https://a/m.onnx"}});
        for name in ["3d-model", "model.v2", "Model", "m-", "", &"m".repeat(51)] {
            assert_eq!(
                validated(name, model()),
                Err(Invalid::Name(name.into())),
                "{name}"
            );
        }
        assert!(validated(&"m".repeat(50), model()).is_ok());
    }
}
