//! Where traces go, which ones, and whose they are: from the options, then from the environment that all programs with
//! OpenTelemetry read.
//!
//! Inputs: the options; variables by name. Outputs: an endpoint, a sampler, a resource; a sentence where what was
//! written cannot be meant. Nothing is read but through the arguments, but for the resource, which the SDK reads itself.

use std::time::Duration;

use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::{Resource, trace::Sampler};
use url::Url;

/// Where a collector takes traces.
const PATH: &str = "v1/traces";
/// The SDK's own defaults.
const PATIENCE: Duration = Duration::from_secs(10);
const PLACES: usize = 2048;
const SAMPLERS: &str = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio";

/// A variable of the environment; an empty one is none.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// Where traces go; `None` where nobody wants any. `option` is `--otlp-endpoint`.
pub(super) fn endpoint(
    option: Option<&Url>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Url>, String> {
    if let Some(url) = option {
        return Ok(Some(with_path(url.clone())));
    }
    let is = |name: &str, value: &str| {
        variable(name).is_some_and(|text| text.trim().eq_ignore_ascii_case(value))
    };
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    let read = |name: &str, text: &str| {
        super::parse_endpoint(text).map_err(|error| format!("{name}={text:?}: {error}"))
    };
    let (own, base) = (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    );
    let found = match (variable(own), variable(base)) {
        (Some(text), _) => read(own, &text)?,
        (None, Some(text)) => below(read(base, &text)?),
        (None, None) => return Ok(None),
    };
    for name in [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ] {
        match variable(name).as_deref() {
            None => {}
            Some("http/protobuf") => break,
            Some(other) => {
                return Err(format!(
                    "{name}={other:?}: this server speaks http/protobuf only; name a port of the collector's \
                     that takes it (4318 as a rule) in --otlp-endpoint"
                ));
            }
        }
    }
    Ok(Some(found))
}

/// How long a collector is waited for.
pub(super) fn patience(variable: impl Fn(&str) -> Option<String>) -> Duration {
    let own = variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT");
    let given = own.or_else(|| variable("OTEL_EXPORTER_OTLP_TIMEOUT"));
    let millis = given.and_then(|text| text.parse().ok());
    millis.map_or(PATIENCE, Duration::from_millis)
}

/// How many spans may wait to be sent.
pub(super) fn places(variable: impl Fn(&str) -> Option<String>) -> usize {
    let given = variable("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|text| text.parse().ok());
    given.filter(|places| *places > 0).unwrap_or(PLACES)
}

/// What is written as a collector's address alone means its usual path.
fn with_path(url: Url) -> Url {
    if url.path() == "/" { below(url) } else { url }
}

fn below(mut url: Url) -> Url {
    let path = format!("{}/{PATH}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// Which traces are kept: as the caller says; of those that begin here, the share `option` (`--trace-ratio`), else
/// as the environment says, else all. And a sentence where the environment says what cannot be.
pub(super) fn sampler(
    option: Option<f64>,
    variable: impl Fn(&str) -> Option<String>,
) -> (Sampler, Option<String>) {
    let as_parent = |sampler| Sampler::ParentBased(Box::new(sampler));
    if let Some(ratio) = option {
        return (as_parent(Sampler::TraceIdRatioBased(ratio)), None);
    }
    let name = variable("OTEL_TRACES_SAMPLER");
    let name = name.as_deref().unwrap_or("parentbased_always_on");
    let mut wrong = None;
    let mut ratio = || {
        let text = variable("OTEL_TRACES_SAMPLER_ARG");
        let given = text.as_deref().map_or(Ok(1.0), super::parse_ratio);
        let ratio = given.unwrap_or_else(|error| {
            wrong = Some(format!(
                "OTEL_TRACES_SAMPLER_ARG={text:?}: {error}; 1 it is"
            ));
            1.0
        });
        Sampler::TraceIdRatioBased(ratio)
    };
    let sampler = match name {
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => ratio(),
        "parentbased_always_on" => as_parent(Sampler::AlwaysOn),
        "parentbased_always_off" => as_parent(Sampler::AlwaysOff),
        "parentbased_traceidratio" => as_parent(ratio()),
        other => {
            wrong = Some(format!(
                "OTEL_TRACES_SAMPLER={other:?} is not known here; write {SAMPLERS}; parentbased_always_on it is"
            ));
            as_parent(Sampler::AlwaysOn)
        }
    };
    (sampler, wrong)
}

/// Whose the traces are: as `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, and what they leave out.
pub(super) fn resource() -> Resource {
    let told = Resource::builder().build();
    let service = |part: &'static str| Key::from_static_str(part);
    let name = told.get(&service("service.name"));
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let mut builder = Resource::builder();
    if !is_named {
        builder = builder.with_service_name("ortolan-server");
    }
    if told.get_ref(&service("service.version")).is_none() {
        let version = env!("CARGO_PKG_VERSION");
        builder = builder.with_attribute(KeyValue::new("service.version", version));
    }
    // In a pod its name, elsewhere the machine's where the shell exports it.
    let host = variable("HOSTNAME");
    let id = host.filter(|_| told.get_ref(&service("service.instance.id")).is_none());
    builder
        .with_attributes(id.map(|id| KeyValue::new("service.instance.id", id)))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among<'e>(variables: &'e [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'e {
        |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn the_option_goes_first_then_the_address_for_traces_then_the_one_for_all() {
        let both = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:1/own"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:2"),
        ];
        let switched_off =
            |name, value| [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:2"), (name, value)];
        for (option, variables, expected) in [
            (None, &[][..], None),
            (None, &both[..], Some("http://a:1/own")),
            (None, &both[1..], Some("http://b:2/v1/traces")),
            (
                None,
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://b/up/")],
                Some("https://b/up/v1/traces"),
            ),
            (Some("http://c:3"), &both, Some("http://c:3/v1/traces")),
            (Some("http://c:3/mine"), &both, Some("http://c:3/mine")),
            (None, &switched_off("OTEL_SDK_DISABLED", "TRUE"), None),
            (None, &switched_off("OTEL_TRACES_EXPORTER", "none"), None),
            (
                Some("http://c:3"),
                &switched_off("OTEL_SDK_DISABLED", "true"),
                Some("http://c:3/v1/traces"),
            ),
            (
                None,
                &switched_off("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
                Some("http://b:2/v1/traces"),
            ),
        ] {
            let option: Option<Url> = option.map(|url| url.parse().unwrap());
            let found = endpoint(option.as_ref(), among(variables)).unwrap();
            let found = found.as_ref().map(Url::as_str);
            assert_eq!(found, expected, "{option:?} {variables:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_said_with_the_variables_name() {
        for (name, value, said) in [
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "collector:4318",
                "://",
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "4318"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
                "http/json",
                "protobuf",
            ),
        ] {
            let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:2"), (name, value)];
            let error = endpoint(None, among(&variables)).unwrap_err();
            assert!(error.contains(name) && error.contains(said), "{error}");
        }
    }

    #[test]
    fn the_option_decides_of_traces_that_begin_here_else_the_environment_does() {
        let shown = |sampler: Sampler| format!("{sampler:?}");
        let as_parent = |sampler| shown(Sampler::ParentBased(Box::new(sampler)));
        let variables = |name: &'static str, arg: &'static str| {
            [
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", arg),
            ]
        };
        for (option, variables, expected) in [
            (None, &[][..], as_parent(Sampler::AlwaysOn)),
            (
                Some(0.25),
                &variables("always_on", ""),
                as_parent(Sampler::TraceIdRatioBased(0.25)),
            ),
            (
                None,
                &variables("always_off", ""),
                shown(Sampler::AlwaysOff),
            ),
            (
                None,
                &variables("parentbased_always_off", ""),
                as_parent(Sampler::AlwaysOff),
            ),
            (
                None,
                &variables("traceidratio", "0.5"),
                shown(Sampler::TraceIdRatioBased(0.5)),
            ),
            (
                None,
                &variables("parentbased_traceidratio", "0.5"),
                as_parent(Sampler::TraceIdRatioBased(0.5)),
            ),
        ] {
            let (sampler, wrong) = sampler(option, among(variables));
            assert_eq!(wrong, None, "{variables:?}");
            assert_eq!(shown(sampler), expected, "{variables:?}");
        }
        for (name, arg, expected) in [
            ("xray", "", Sampler::AlwaysOn),
            (
                "parentbased_traceidratio",
                "half",
                Sampler::TraceIdRatioBased(1.0),
            ),
            (
                "parentbased_traceidratio",
                "7",
                Sampler::TraceIdRatioBased(1.0),
            ),
        ] {
            let (sampler, wrong) = sampler(None, among(&variables(name, arg)));
            assert!(wrong.is_some(), "{name} {arg}");
            assert_eq!(shown(sampler), as_parent(expected));
        }
    }
}
