//! `ortolan-server inspect`: what is in a model, from the file alone; with `--measure` what it takes to run it.
//!
//! Without `--measure` nothing is loaded: the file is read once, its weights are skipped. ONNX Runtime's library is
//! only asked which execution providers it brings, and may be missing.

use std::{collections::BTreeMap, path::Path};

use ortolan_model::Package;
use serde_json::{Value as Json, json};

use super::{Refusal, inputs::InputOptions, source::Source};
use crate::{
    onnx::census::{self, Census, Kind, Value},
    runtime,
};

pub mod measure;
mod providers;
mod render;

pub use measure::Measured;

/// `ortolan-server inspect`
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: Source,

    /// Write JSON.
    #[arg(long)]
    pub json: bool,

    /// Load the model, run it, and tell how long that takes and how the process's memory grows.
    #[arg(long)]
    pub measure: bool,

    /// How many sessions --measure loads, one after the other.
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub sessions: u16,

    /// Threads inside each session of --measure.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub inputs: InputOptions,
}

/// All that is known of a model.
pub struct Report {
    pub(super) package: Package,
    pub(super) file_bytes: u64,
    pub(super) census: Census,
    /// The files with external data: location, bytes it must have, bytes it has.
    pub(super) external: Vec<(String, u64, Option<u64>)>,
    /// Nothing, or each thing that stands in the way.
    pub(super) not_batchable: Vec<String>,
    /// The library's build, and the providers in it; a sentence when there is no library.
    pub(super) runtime: Result<(String, Vec<&'static str>), String>,
    pub(super) measured: Option<Measured>,
}

/// Inspects and gives the report.
pub fn run(options: &Options) -> Result<String, Refusal> {
    if !options.measure && (options.inputs.data.is_some() || !options.inputs.shapes.is_empty()) {
        return Err(Refusal::Data(
            "--shape and --data say what to run the model with: they need --measure".to_owned(),
        ));
    }
    let package = options.source.obtain()?;
    // What no server could load gets the server's own sentence.
    let outline = runtime::inspect(&package.model_path);
    let census = census::census(&package.model_path);
    let (census, outline) = match (census, outline) {
        (Ok(census), outline) => (census, outline),
        (Err(_), Err(failure)) => return Err(failure.into()),
        (Err(error), Ok(_)) => return Err(super::internal(error)),
    };
    let library = options.source.access.onnxruntime.as_deref();
    let started = runtime::start(library);
    let measured = match (options.measure, &started) {
        (false, _) => None,
        (true, Err(failure)) => return Err(failure.clone().into()),
        (true, Ok((environment, _))) => Some(measure::measure(
            environment,
            &package.model_path,
            &outline?,
            options,
        )?),
    };
    let report = Report {
        file_bytes: length(&package.model_path).unwrap_or(package.bytes),
        external: external(&census, &package.model_path),
        not_batchable: not_batchable(&census),
        runtime: started
            .map(|(_, path)| (path.display().to_string(), providers::in_library()))
            .map_err(|failure| failure.message),
        package,
        census,
        measured,
    };
    Ok(if options.json {
        format!("{:#}", report.json())
    } else {
        render::text(&report)
    })
}

fn length(path: &Path) -> Option<u64> {
    Some(std::fs::metadata(path).ok()?.len())
}

fn external(census: &Census, model: &Path) -> Vec<(String, u64, Option<u64>)> {
    let dir = model.parent().unwrap_or(Path::new("."));
    let files = census.parameters.external.iter();
    files
        .map(|(location, extent)| (location.clone(), extent.end, length(&dir.join(location))))
        .collect()
}

/// Everything that keeps requests from being put together along the first dimension.
fn not_batchable(census: &Census) -> Vec<String> {
    let inputs = census.inputs.iter().filter(|input| !input.has_default);
    let sides = inputs
        .map(|value| ("input", value))
        .chain(census.outputs.iter().map(|value| ("output", value)));
    let mut reasons: Vec<String> = sides
        .filter_map(|(what, value)| in_the_way(what, value))
        .collect();
    if census.inputs.iter().all(|input| input.has_default) {
        reasons.push("there is no input to put together".to_owned());
    }
    reasons
}

fn in_the_way(what: &str, value: &Value) -> Option<String> {
    let name = &value.name;
    let shape = match &value.kind {
        Kind::Odd(kind) => return Some(format!("the {what} {name:?} is {kind}")),
        Kind::Unknown | Kind::Tensor { shape: None, .. } => {
            return Some(format!(
                "the file does not tell the shape of the {what} {name:?} (--measure asks ONNX Runtime)"
            ));
        }
        Kind::Tensor {
            shape: Some(shape), ..
        } => shape,
    };
    match shape.first() {
        None => Some(format!(
            "the {what} {name:?} is a scalar: it has no first dimension"
        )),
        Some(census::Dim::Fixed(size)) => Some(format!(
            "the first dimension of the {what} {name:?} is always {size}"
        )),
        Some(_) => None,
    }
}

impl Report {
    /// Batches are possible: by ONNX Runtime's word where the model was loaded, else by the file's.
    pub(super) fn is_batchable(&self) -> bool {
        match &self.measured {
            Some(measured) => measured.is_batchable,
            None => self.not_batchable.is_empty(),
        }
    }

    fn json(&self) -> Json {
        let census = &self.census;
        let operators: Vec<Json> = census
            .operators
            .iter()
            .map(|((domain, name), count)| json!({"domain": domain, "operator": name, "count": count}))
            .collect();
        let custom: Vec<String> = census.custom_operators().map(show_operator).collect();
        let external: Vec<Json> = self
            .external
            .iter()
            .map(|(file, needs, has)| json!({"file": file, "neededBytes": needs, "bytes": has}))
            .collect();
        let reasons: &[String] = if self.is_batchable() {
            &[]
        } else {
            &self.not_batchable
        };
        let runtime = match &self.runtime {
            Ok((library, providers)) => json!({"library": library, "providers": providers}),
            Err(why) => json!({"error": why}),
        };
        json!({
            "digest": self.package.digest.to_string(),
            "fileBytes": self.file_bytes,
            "irVersion": census.ir_version,
            "producer": census.producer,
            "modelVersion": census.model_version,
            "graph": census.graph,
            "metadata": census.metadata,
            "opsets": census.opsets,
            "functions": census.functions.iter().map(|(d, n)| show_operator((d, n))).collect::<Vec<_>>(),
            "inputs": values(&census.inputs),
            "outputs": values(&census.outputs),
            "nodes": census.nodes(),
            "operators": operators,
            "customOperators": custom,
            "parameters": {
                "tensors": census.parameters.tensors,
                "count": census.parameters.count,
                "bytes": census.parameters.bytes,
                "bytesByType": census.parameters.by_type,
                "external": external,
            },
            "estimate": { "weightsBytes": census.parameters.bytes, "activations": census.activations },
            "batchable": self.is_batchable(),
            "notBatchable": reasons,
            "runtime": runtime,
            "measured": self.measured,
        })
    }
}

fn show_operator((domain, name): (impl AsRef<str>, impl AsRef<str>)) -> String {
    let (domain, name) = (domain.as_ref(), name.as_ref());
    if domain.is_empty() {
        name.to_owned()
    } else {
        format!("{domain}.{name}")
    }
}

fn values(values: &[Value]) -> Vec<BTreeMap<&'static str, Json>> {
    let one = |value: &Value| {
        let mut object = BTreeMap::from([("name", json!(value.name))]);
        match &value.kind {
            Kind::Tensor { element, shape } => {
                object.insert("datatype", json!(census::element_name(*element)));
                object.insert("shape", json!(shape));
            }
            Kind::Odd(kind) => {
                object.insert("kind", json!(kind));
            }
            Kind::Unknown => {}
        }
        if value.has_default {
            object.insert("optional", json!(true));
        }
        object
    };
    values.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use census::Dim;

    use super::*;

    fn value(name: &str, shape: Option<Vec<Dim>>) -> Value {
        Value {
            name: name.into(),
            kind: Kind::Tensor { element: 1, shape },
            has_default: false,
        }
    }

    #[test]
    fn what_stands_in_the_way_of_batches_is_told_one_by_one() {
        let free = || Some(vec![Dim::Named("n".into()), Dim::Fixed(4)]);
        let mut census = Census {
            inputs: vec![value("x", free())],
            outputs: vec![value("y", Some(vec![Dim::Free]))],
            ..Census::default()
        };
        assert_eq!(not_batchable(&census), [""; 0]);
        census.inputs.push(value("sr", Some(vec![])));
        census.outputs.push(value("z", Some(vec![Dim::Fixed(1)])));
        census.outputs.push(value("u", None));
        census.outputs.push(Value {
            kind: Kind::Odd("a map"),
            ..value("m", None)
        });
        let reasons = not_batchable(&census);
        for (reason, words) in reasons.iter().zip([
            "input \"sr\" is a scalar",
            "output \"z\" is always 1",
            "shape of the output \"u\"",
            "output \"m\" is a map",
        ]) {
            assert!(reason.contains(words), "{reason}");
        }
        assert_eq!(reasons.len(), 4);
        census.inputs[1].has_default = true;
        assert_eq!(
            not_batchable(&census).len(),
            3,
            "what a request may leave out is not asked"
        );
    }
}
