//! From the body of an inference request to tensors in the model's order.
//!
//! The body is JSON, or JSON and behind it the bytes of the inputs that say `binary_data_size`, in their order,
//! or (with a JSON part of length 0) the bytes of the model's only input.

use std::borrow::Cow;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    binary,
    dtype::DataType,
    http::{error::ApiError, object},
    json::data,
    oip::{self, Inputs, Wanted},
    parameters::{self, OfOutput, OfRequest, Parameters},
    signature::{Signature, show_shape},
    tensor::{Elements, Tensor},
};

/// How long the JSON part of a body is.
pub(crate) const JSON_LENGTH: &str = "inference-header-content-length";

/// The JSON part; `data` is only delimited here, it is read once its datatype is known.
#[derive(Deserialize)]
struct InferRequest<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "parameters::object")]
    parameters: Parameters<'a>,
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
    #[serde(borrow, default, deserialize_with = "parameters::object")]
    parameters: Parameters<'a>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WantedOutput<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "parameters::object")]
    parameters: Parameters<'a>,
}

/// A request that fits the model.
#[derive(Debug)]
pub(super) struct Asked {
    /// Echoed.
    pub id: Option<String>,
    /// In the model's order.
    pub inputs: Vec<Option<Tensor>>,
    /// In the answer's order.
    pub wanted: Vec<Wanted>,
    /// The rest.
    pub parameters: OfRequest,
}

/// How a body is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// All of it is JSON.
    Json,
    /// So many bytes of JSON, then tensors.
    Mixed(usize),
    /// All of it is the only input.
    Raw,
}

impl Form {
    /// As the headers say.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(value) = headers.get(JSON_LENGTH) else {
            return Ok(Self::Json);
        };
        let length = value
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse().ok());
        match length {
            Some(0) => Ok(Self::Raw),
            Some(length) => Ok(Self::Mixed(length)),
            None => Err(ApiError::bad(format!(
                "the header Inference-Header-Content-Length is {value:?}, expected how many bytes of the body \
                 are JSON"
            ))),
        }
    }
}

/// Reads and checks a body.
pub(super) fn read(body: &[u8], form: Form, model: &Signature) -> Result<Asked, ApiError> {
    match form {
        Form::Json => parts(body, &[], model),
        Form::Raw => raw(body, model).map_err(ApiError::bad),
        Form::Mixed(length) => match body.split_at_checked(length) {
            Some((json, tensors)) => parts(json, tensors, model),
            None => Err(ApiError::bad(format!(
                "the header Inference-Header-Content-Length says {length} bytes, and the body has {}",
                body.len()
            ))),
        },
    }
}

fn parts(json: &[u8], tensors: &[u8], model: &Signature) -> Result<Asked, ApiError> {
    let request: InferRequest<'_> = object::read(json)?;
    let Some(given) = request.inputs else {
        return Err(ApiError::bad(format!(
            "the body has no \"inputs\"; expected an array with the inputs {}",
            oip::names(&model.inputs)
        )));
    };
    let parameters = OfRequest::read(&request.parameters).map_err(ApiError::bad)?;
    let mut inputs = Inputs::new(model);
    let mut rest = tensors;
    for input in given {
        read_input(input, &mut rest, &mut inputs).map_err(ApiError::bad)?;
    }
    if !rest.is_empty() {
        return Err(ApiError::bad(format!(
            "{} bytes are left in the body after the inputs; each input's binary_data_size says how many are \
             its own",
            rest.len()
        )));
    }
    let named = request.outputs.unwrap_or_default();
    let named = named
        .iter()
        .map(|output| Ok((output.name.as_ref(), OfOutput::read(&output.parameters)?)));
    let binary = parameters.binary.unwrap_or(false);
    Ok(Asked {
        id: request.id.map(Cow::into_owned),
        wanted: oip::wanted(model, named, binary).map_err(ApiError::bad)?,
        inputs: inputs.finish().map_err(ApiError::bad)?,
        parameters,
    })
}

fn read_input(
    input: InferInput<'_>,
    rest: &mut &[u8],
    inputs: &mut Inputs<'_>,
) -> Result<(), String> {
    let name = &input.name;
    let declared = inputs.declare(name, &input.datatype, &input.shape)?;
    let (datatype, count) = (declared.spec.datatype, declared.count);
    let size = parameters::binary_size(&input.parameters)
        .map_err(|why| format!("input {name:?}: {why}"))?;
    let elements = match (size, input.data) {
        (Some(_), Some(_)) => {
            Err("it has both \"data\" and \"binary_data_size\"; send one of the two".to_owned())
        }
        (None, None) => Err(format!("it has no \"data\"; expected {count} elements")),
        (None, Some(raw)) => from_json(raw.get(), datatype, count, &input.shape),
        (Some(size), None) => match rest.split_at_checked(size) {
            Some((mine, others)) => {
                *rest = others;
                binary::read(mine, datatype, count).map_err(|error| error.to_string())
            }
            None => Err(format!(
                "its binary_data_size is {size}, and {} bytes are left in the body; the header \
                 Inference-Header-Content-Length says where the JSON ends and the tensors begin",
                rest.len()
            )),
        },
    };
    let elements = elements.map_err(|why| format!("input {name:?}: {why}"))?;
    let tensor = Tensor {
        shape: input.shape,
        elements,
    };
    inputs.take(&declared, tensor);
    Ok(())
}

fn from_json(
    raw: &str,
    datatype: DataType,
    count: usize,
    shape: &[i64],
) -> Result<Elements, String> {
    // A body's own length bounds the elements in it, whatever its shape says.
    let mut elements = Elements::with_capacity(datatype, count.min(raw.len() / 2 + 1));
    let nested = data::read(raw, datatype, &mut elements).map_err(|error| error.to_string())?;
    if elements.len() != count {
        return Err(format!(
            "it has {} elements, expected {count} for the shape {}",
            elements.len(),
            show_shape(shape)
        ));
    }
    if nested.len() > 1 && nested != shape {
        return Err(format!(
            "its data is nested as {}, and its shape says {}",
            show_shape(&nested),
            show_shape(shape)
        ));
    }
    Ok(elements)
}

/// A body without a JSON part. Its answer comes as bytes, as Triton has it; a string goes without its length.
fn raw(body: &[u8], model: &Signature) -> Result<Asked, String> {
    let spec = oip::only_input(model)?;
    let place = model.input_index(&spec.name).unwrap_or(0);
    let failed = |why: String| format!("input {:?}: {why}", spec.name);
    let (count, elements) = match binary::width(spec.datatype) {
        Some(width) if body.len().is_multiple_of(width) => {
            let count = body.len() / width;
            let elements = binary::read(body, spec.datatype, count);
            (count, elements.map_err(|error| failed(error.to_string()))?)
        }
        Some(width) => {
            return Err(failed(format!(
                "the body has {} bytes, and an element of {} has {width}",
                body.len(),
                spec.datatype
            )));
        }
        None => {
            let text = std::str::from_utf8(body);
            let text =
                text.map_err(|_| failed(binary::BinaryError::NoText { index: 0 }.to_string()))?;
            (1, Elements::Bytes(vec![text.to_owned()]))
        }
    };
    let shape = oip::infer_shape(spec, count)?;
    let mut inputs: Vec<Option<Tensor>> = model.inputs.iter().map(|_| None).collect();
    inputs[place] = Some(Tensor { shape, elements });
    Ok(Asked {
        id: None,
        inputs,
        wanted: oip::wanted(model, Vec::new().into_iter(), true)?,
        parameters: OfRequest::default(),
    })
}
