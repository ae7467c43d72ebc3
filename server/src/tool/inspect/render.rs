//! The report of `inspect` for people.

use std::time::Duration;

use super::{Measured, Report, show_operator};
use crate::{
    onnx::census::{self, Kind, Value},
    tool::text::{self, Align},
};

/// A metadata value of an exporter may be a whole vocabulary.
const MAX_SHOWN: usize = 60;

pub(super) fn text(report: &Report) -> String {
    let census = &report.census;
    let mut lines = vec![
        line("file", report.package.model_path.display()),
        line("size", text::bytes(report.file_bytes)),
        line("digest", report.package.digest),
        line("format", format!("IR version {}", census.ir_version)),
        line("opset", opsets(report)),
    ];
    for (label, value) in [("producer", &census.producer), ("graph", &census.graph)] {
        if !value.is_empty() {
            lines.push(line(label, value));
        }
    }
    if census.model_version != 0 {
        lines.push(line("version", census.model_version));
    }
    for (key, value) in &census.metadata {
        lines.push(line("metadata", format!("{key} = {}", shortened(value))));
    }
    lines.extend(
        census
            .inputs
            .iter()
            .map(|value| line("input", shown(value))),
    );
    lines.extend(
        census
            .outputs
            .iter()
            .map(|value| line("output", shown(value))),
    );
    lines.push(line("parameters", parameters(report)));
    lines.extend(external(report));
    lines.extend(memory(report));
    lines.extend(batches(report));
    lines.extend(custom(report));
    lines.extend(providers(report));
    if let Some(measured) = &report.measured {
        lines.push(String::new());
        lines.push(measurement(measured));
    }
    lines.push(String::new());
    lines.push(operators(report));
    lines.join("\n")
}

fn line(label: &str, value: impl std::fmt::Display) -> String {
    format!("  {label:<11} {value}")
}

fn shortened(value: &str) -> String {
    let flat = value.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= MAX_SHOWN {
        return flat;
    }
    let start: String = flat.chars().take(MAX_SHOWN).collect();
    format!("{start}… ({} characters)", value.chars().count())
}

fn opsets(report: &Report) -> String {
    let sets = report.census.opsets.iter();
    sets.map(|(domain, version)| format!("{domain} {version}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn shown(value: &Value) -> String {
    let what = match &value.kind {
        Kind::Tensor { element, shape } => {
            let shape = shape.as_ref().map(|dims| {
                let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
                format!("[{}]", dims.join(","))
            });
            format!(
                "{} {}",
                census::element_name(*element),
                shape.as_deref().unwrap_or("(shape not in the file)")
            )
        }
        Kind::Odd(kind) => (*kind).to_owned(),
        Kind::Unknown => "(type not in the file)".to_owned(),
    };
    let optional = if value.has_default {
        "  (optional: the file has a default)"
    } else {
        ""
    };
    format!("{} {what}{optional}", value.name)
}

fn parameters(report: &Report) -> String {
    let parameters = &report.census.parameters;
    let types: Vec<String> = parameters
        .by_type
        .iter()
        .map(|(name, bytes)| format!("{name} {}", text::bytes(*bytes)))
        .collect();
    format!(
        "{} in {} tensors, {}{}",
        text::count(parameters.count),
        text::count(parameters.tensors),
        text::bytes(parameters.bytes),
        if types.is_empty() {
            String::new()
        } else {
            format!(" ({})", types.join(", "))
        }
    )
}

fn external(report: &Report) -> Vec<String> {
    let files = report.external.iter();
    files
        .map(|(location, needs, has)| {
            let state = match has {
                None => "MISSING beside the model".to_owned(),
                Some(has) if has < needs => {
                    format!("TRUNCATED: it has {has} bytes, the model needs {needs}")
                }
                Some(has) => text::bytes(*has),
            };
            line("external", format!("{location}: {state}"))
        })
        .collect()
}

fn memory(report: &Report) -> [String; 2] {
    let live = &report.census.activations;
    let known = if live.known == live.values {
        "open dimensions count as 1".to_owned()
    } else {
        format!(
            "open dimensions count as 1, and only {} of {} values have a shape in the file",
            text::count(live.known as u64),
            text::count(live.values as u64)
        )
    };
    [
        line(
            "memory",
            format!(
                "for each session {} of weights and at least {} of values in a run,",
                text::bytes(report.census.parameters.bytes),
                text::bytes(live.peak_bytes)
            ),
        ),
        line("", format!("an estimate from the graph: {known}")),
    ]
}

fn batches(report: &Report) -> Vec<String> {
    if report.is_batchable() {
        return vec![line("batchable", "yes, the first dimension is free")];
    }
    let mut reasons = report.not_batchable.iter();
    let first = reasons
        .next()
        .map_or("a first dimension is not free", String::as_str);
    let mut lines = vec![line("batchable", format!("no: {first}"))];
    lines.extend(reasons.map(|reason| line("", format!("    {reason}"))));
    lines
}

fn custom(report: &Report) -> Vec<String> {
    let names: Vec<String> = report
        .census
        .custom_operators()
        .map(show_operator)
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    vec![line(
        "custom",
        format!(
            "{}: ONNX Runtime does not bring these operators along, the server refuses the model",
            names.join(", ")
        ),
    )]
}

fn providers(report: &Report) -> Vec<String> {
    match &report.runtime {
        Ok((library, providers)) => vec![
            line("runtime", library),
            line("providers", providers.join(", ")),
        ],
        Err(why) => vec![line("runtime", format!("none: {why}"))],
    }
}

fn measurement(measured: &Measured) -> String {
    let time = |seconds: f64| text::duration(Duration::from_secs_f64(seconds));
    let rows: Vec<Vec<String>> = measured
        .sessions
        .iter()
        .enumerate()
        .map(|(at, cost)| {
            let sign = if cost.growth_bytes < 0 { "-" } else { "+" };
            vec![
                (at + 1).to_string(),
                time(cost.load_seconds),
                time(cost.first_run_seconds),
                time(cost.run_seconds),
                format!("{sign}{}", text::bytes(cost.growth_bytes.unsigned_abs())),
            ]
        })
        .collect();
    let head = [
        "session",
        "load",
        "first run",
        "run (median)",
        "resident memory",
    ];
    format!(
        "  measured with {}; {} resident before the first session\n\n{}",
        measured.inputs,
        text::bytes(measured.before_bytes),
        text::table(&head.map(|name| (name, Align::Right)), &rows).trim_end()
    )
}

fn operators(report: &Report) -> String {
    let mut counted: Vec<_> = report.census.operators.iter().collect();
    counted.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
    let rows: Vec<Vec<String>> = counted
        .into_iter()
        .map(|((domain, name), count)| vec![text::count(*count), show_operator((domain, name))])
        .collect();
    let nodes = format!("of {} nodes", text::count(report.census.nodes()));
    text::table(&[("count", Align::Right), (&nodes, Align::Left)], &rows)
}
