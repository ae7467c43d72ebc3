//! What a person at a terminal wants to know once the model is ready: what was found, what to try.

use crate::{
    app::App,
    dtype::DataType,
    model::Model,
    options::{LogFormat, Options},
    ports::Addresses,
    signature::{TensorSpec, show_shape},
};

/// Says that the models are ready; at a terminal's log format with all that was found.
pub fn ready(options: &Options, addresses: &Addresses, app: &App) {
    let seconds = app.startup.elapsed().as_secs_f64();
    let models = app.catalog.models();
    // What there is to say of each fills a screen for one model; the index tells it of many.
    let is_one = models.len() == 1;
    for model in models {
        tracing::info!(
            model = model.name,
            version = model.version,
            digest = %model.digest,
            provider = model.active.as_str(),
            sessions = model.sessions,
            threads = model.threads,
            "ready after {seconds:.3} s"
        );
        if options.log_format == LogFormat::Text && is_one {
            eprintln!("{}", summary(addresses, &model));
        }
    }
    if options.log_format == LogFormat::Text && app.repository().is_some() {
        let (scheme, address) = (addresses.scheme(), addresses.http);
        eprintln!("\n  The models:  curl -X POST {scheme}://{address}/v2/repository/index\n");
    }
}

fn summary(addresses: &Addresses, model: &Model) -> String {
    let signature = &model.signature;
    let requested = model.requested.as_str();
    let active = model.active.as_str();
    let provider = if requested == active {
        active.to_owned()
    } else {
        format!("{active} (asked for {requested})")
    };
    let mut lines = vec![format!(
        "\n  model     {} version {}",
        model.name, model.version
    )];
    lines.extend(tensors("input", &signature.inputs));
    lines.extend(tensors("output", &signature.outputs));
    lines.push(format!("  opset     {}", signature.opset));
    lines.push(format!("  batches   {}", model.engine.reason));
    lines.push(format!("  provider  {provider}"));
    lines.push(format!(
        "  sessions  {}, {} thread(s) each",
        model.sessions, model.threads
    ));
    let base = format!("{}://{}", addresses.scheme(), addresses.http);
    lines.push(format!("  address   {base}"));
    if let Some(grpc) = addresses.grpc {
        lines.push(format!("  gRPC      {grpc}"));
    }
    lines.push(format!("\n  Try:  {}\n", example(&base, model)));
    lines.join("\n")
}

fn tensors(what: &str, specs: &[TensorSpec]) -> Vec<String> {
    let line = |spec: &TensorSpec| {
        format!(
            "  {what:<8}  {} {} {}",
            spec.name,
            spec.datatype,
            show_shape(&spec.shape)
        )
    };
    specs.iter().map(line).collect()
}

/// A curl line that works as it stands: small tensors written out, else the model's metadata.
fn example(base: &str, model: &Model) -> String {
    if let Some(pipeline) = &model.pipeline {
        let example = pipeline.reader.example();
        return format!("curl {example} {base}/predict/{}", model.name);
    }
    let inputs: Option<Vec<String>> = model.signature.required().map(zeros).collect();
    match inputs {
        Some(inputs) => format!(
            "curl -d '{{\"inputs\":[{}]}}' {base}/v2/models/{}/infer",
            inputs.join(","),
            model.name
        ),
        None => format!("curl {base}/v2/models/{}", model.name),
    }
}

/// A zero tensor as JSON, if it is short enough for a line.
fn zeros(spec: &TensorSpec) -> Option<String> {
    let shape: Vec<i64> = spec
        .shape
        .iter()
        .map(|dim| if *dim < 0 { 1 } else { *dim })
        .collect();
    let count = crate::tensor::element_count(&shape).filter(|count| *count <= 64)?;
    let element = match spec.datatype {
        DataType::Bool => "false",
        DataType::Bytes => "\"\"",
        _ => "0",
    };
    Some(format!(
        "{{\"name\":\"{}\",\"datatype\":\"{}\",\"shape\":{},\"data\":[{}]}}",
        spec.name,
        spec.datatype,
        show_shape(&shape),
        vec![element; count].join(",")
    ))
}
