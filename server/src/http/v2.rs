//! The Open Inference Protocol V2 over REST, with JSON tensors.

use std::{borrow::Cow, time::Instant};

use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::error::ApiError;
use crate::{
    app::App,
    dtype::DataType,
    infer::{self, Outcome, Request},
    json::{data, write},
    model::Model,
    signature::{TensorSpec, show_names, show_shape},
    tensor::{Elements, Tensor, element_count},
};

/// What the protocol calls a model that ONNX Runtime runs.
pub const PLATFORM: &str = "onnxruntime_onnx";

/// The body of a request; `data` is only delimited here, it is read once its datatype is known.
#[derive(Deserialize)]
struct InferRequest<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    inputs: Option<Vec<InferInput<'a>>>,
    #[serde(borrow, default)]
    outputs: Option<Vec<WantedOutput<'a>>>,
}

#[derive(Deserialize)]
struct InferInput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Vec<i64>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WantedOutput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// A request that fits the model.
#[derive(Debug)]
pub struct Infer {
    /// Echoed.
    pub id: Option<String>,
    /// What the model is asked.
    pub request: Request,
}

/// `GET /v2`
#[must_use]
pub fn server_metadata() -> serde_json::Value {
    json!({ "name": "ortolan", "version": env!("CARGO_PKG_VERSION"), "extensions": [] })
}

/// `GET /v2/models/{m}`
#[must_use]
pub fn model_metadata(app: &App, model: &Model) -> serde_json::Value {
    json!({
        "name": model.name,
        "versions": app.catalog.versions(&model.name),
        "platform": PLATFORM,
        "inputs": model.signature.inputs,
        "outputs": model.signature.outputs,
    })
}

/// Reads and checks the body of an inference request.
pub fn parse(body: &[u8], model: &Model) -> Result<Infer, ApiError> {
    let request: InferRequest<'_> = object(body)?;
    let signature = &model.signature;
    let Some(inputs) = request.inputs else {
        return Err(ApiError::bad(format!(
            "the body has no \"inputs\"; expected an array with the inputs {}",
            names(&signature.inputs)
        )));
    };
    let mut tensors: Vec<Option<Tensor>> = signature.inputs.iter().map(|_| None).collect();
    for input in &inputs {
        let Some(index) = signature.input_index(&input.name) else {
            return Err(ApiError::bad(format!(
                "there is no input {:?}; the model's inputs are {}",
                input.name,
                names(&signature.inputs)
            )));
        };
        if tensors[index].is_some() {
            return Err(ApiError::bad(format!(
                "the input {:?} is given twice",
                input.name
            )));
        }
        tensors[index] = Some(tensor(input, &signature.inputs[index])?);
    }
    let missing = signature
        .inputs
        .iter()
        .zip(&tensors)
        .filter(|(spec, tensor)| tensor.is_none() && !spec.optional);
    let missing = show_names(missing.map(|(spec, _)| spec.name.as_str()));
    if !missing.is_empty() {
        return Err(ApiError::bad(format!(
            "the request lacks the input {missing}"
        )));
    }
    Ok(Infer {
        id: request.id.map(Cow::into_owned),
        request: Request {
            outputs: wanted(request.outputs.as_deref(), model)?,
            ..Request::new(tensors)
        },
    })
}

fn names(specs: &[TensorSpec]) -> String {
    show_names(specs.iter().map(|spec| spec.name.as_str()))
}

fn wanted(outputs: Option<&[WantedOutput<'_>]>, model: &Model) -> Result<Vec<usize>, ApiError> {
    let signature = &model.signature;
    match outputs {
        None | Some([]) => Ok((0..signature.outputs.len()).collect()),
        Some(outputs) => outputs
            .iter()
            .map(|output| {
                signature.output_index(&output.name).ok_or_else(|| {
                    ApiError::bad(format!(
                        "there is no output {:?}; the model's outputs are {}",
                        output.name,
                        names(&signature.outputs)
                    ))
                })
            })
            .collect(),
    }
}

fn tensor(input: &InferInput<'_>, spec: &TensorSpec) -> Result<Tensor, ApiError> {
    let name = &input.name;
    let datatype = DataType::from_name(&input.datatype).ok_or_else(|| {
        ApiError::bad(format!(
            "input {name:?} has the unknown datatype {:?}; the datatypes are {}",
            input.datatype,
            DataType::ALL.map(DataType::as_str).join(", ")
        ))
    })?;
    if datatype != spec.datatype {
        return Err(ApiError::bad(format!(
            "input {name:?} has the datatype {datatype}, expected {}",
            spec.datatype
        )));
    }
    let count = element_count(&input.shape).ok_or_else(|| {
        ApiError::bad(format!(
            "input {name:?} has the shape {}: a dimension is negative or their product too large",
            show_shape(&input.shape)
        ))
    })?;
    spec.accepts(&input.shape).map_err(ApiError::bad)?;
    let Some(raw) = input.data else {
        return Err(ApiError::bad(format!(
            "input {name:?} has no \"data\"; expected {count} elements"
        )));
    };
    // A body's own length bounds the elements in it, whatever its shape says.
    let mut elements = Elements::with_capacity(datatype, count.min(raw.get().len() / 2 + 1));
    let nested = data::read(raw.get(), datatype, &mut elements)
        .map_err(|error| ApiError::bad(format!("input {name:?}: {error}")))?;
    if elements.len() != count {
        return Err(ApiError::bad(format!(
            "input {name:?} has {} elements, expected {count} for the shape {}",
            elements.len(),
            show_shape(&input.shape)
        )));
    }
    if nested.len() > 1 && nested != input.shape {
        return Err(ApiError::bad(format!(
            "input {name:?}: its data is nested as {}, and its shape says {}",
            show_shape(&nested),
            show_shape(&input.shape)
        )));
    }
    Ok(Tensor {
        shape: input.shape.clone(),
        elements,
    })
}

/// Reads a body that must be a JSON object; serde alone would take an array of the fields, too.
pub(super) fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    let parsed = serde_json::from_slice(body).map_err(|error| malformed(body, &error))?;
    match body.trim_ascii_start().first() {
        Some(b'{') => Ok(parsed),
        _ => Err(ApiError::bad("the body is JSON, but not an object {...}")),
    }
}

/// 400 for a body that is no JSON or not this protocol's; NaN is what most often breaks one.
fn malformed(body: &[u8], error: &serde_json::Error) -> ApiError {
    use serde_json::error::Category;
    if body.trim_ascii().is_empty() {
        return ApiError::bad("the body is empty, expected JSON");
    }
    if error.classify() == Category::Data {
        return ApiError::bad(format!("the body is not what this path reads: {error}"));
    }
    let line = body
        .split(|byte| *byte == b'\n')
        .nth(error.line().saturating_sub(1));
    let near = line.map(|line| {
        let end = (error.column() + 8).min(line.len());
        &line[error.column().saturating_sub(9).min(end)..end]
    });
    let near = String::from_utf8_lossy(near.unwrap_or_default()).into_owned();
    let hint = if near.contains("NaN") || near.contains("Inf") {
        "; JSON has no NaN and no infinity: write the strings \"NaN\", \"Infinity\", \"-Infinity\""
    } else {
        ""
    };
    ApiError::bad(format!("the body is not valid JSON: {error}{hint}"))
}

/// Runs a request and writes its answer.
pub async fn infer(app: &App, model: &Model, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let start = Instant::now();
    let request = parse(body, model)?;
    model.meter.preprocessed(start.elapsed());
    let wanted = request.request.outputs.clone();
    let outcome = infer::run(app, model, request.request).await?;
    let start = Instant::now();
    let answer = answer(model, request.id.as_deref(), &wanted, &outcome)?;
    model.meter.postprocessed(start.elapsed());
    Ok(answer)
}

fn answer(
    model: &Model,
    id: Option<&str>,
    wanted: &[usize],
    outcome: &Outcome,
) -> Result<Vec<u8>, ApiError> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"model_name\":");
    write::string(&mut out, &model.name);
    out.extend_from_slice(b",\"model_version\":");
    write::string(&mut out, &model.version);
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        write::string(&mut out, id);
    }
    out.extend_from_slice(b",\"outputs\":[");
    for (place, (index, output)) in wanted.iter().zip(&outcome.outputs).enumerate() {
        let spec = &model.signature.outputs[*index];
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        write::string(&mut out, &spec.name);
        out.extend_from_slice(b",\"datatype\":");
        write::string(&mut out, spec.datatype.as_str());
        out.extend_from_slice(b",\"shape\":");
        out.extend_from_slice(show_shape(output.shape()).as_bytes());
        out.extend_from_slice(b",\"data\":");
        // The protocol's data is an array even for a scalar.
        let (elements, shape) = (output.elements()?, output.shape());
        write::elements(&mut out, elements, shape, write::Layout::Flat);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}
