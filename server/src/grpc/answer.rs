//! From outputs to a `ModelInferResponse`. Raw contents are not copied here: the message holds the memory
//! that ONNX Runtime wrote, and the one copy is that into the connection's buffer.

use bytes::Bytes;
use tonic::Status;

use super::{
    proto::{InferTensorContents, ModelInferResponse, model_infer_response::InferOutputTensor},
    status,
};
use crate::{
    binary,
    infer::Outcome,
    model::Model,
    oip::{Answered, Wanted},
    output::{Output, Unreadable},
    tensor::View,
};

/// Writes an answer. The outcome's outputs are those of `wanted`, in that order.
pub(super) fn write(
    model: &Model,
    id: String,
    wanted: &[Wanted],
    outcome: &Outcome,
) -> Result<ModelInferResponse, Status> {
    let mut response = ModelInferResponse {
        model_name: model.name.clone(),
        model_version: model.version.clone(),
        id,
        ..ModelInferResponse::default()
    };
    for (wanted, output) in wanted.iter().zip(&outcome.outputs) {
        let name = &model.signature.outputs[wanted.index].name;
        let failed = |error: Unreadable| status::unreadable(name, &error);
        let answered = Answered::of(model, wanted, output).map_err(failed)?;
        let elements = answered.elements().map_err(failed)?;
        let mut tensor = InferOutputTensor {
            name: name.clone(),
            datatype: answered.datatype().as_str().to_owned(),
            shape: answered.shape().to_vec(),
            ..InferOutputTensor::default()
        };
        if wanted.binary {
            response.raw_output_contents.push(match &answered {
                Answered::Whole(output) if elements.bytes().is_some() => {
                    Bytes::from_owner(Memory(Output::clone(output)))
                }
                _ => copied(elements),
            });
        } else {
            tensor.contents = Some(contents(elements));
        }
        response.outputs.push(tensor);
    }
    Ok(response)
}

/// The memory of an output's numbers, held as long as a message needs it.
struct Memory(Output);

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        // It was read a moment ago, so that it can be read now.
        let elements = self.0.elements().ok();
        elements
            .and_then(|elements| elements.bytes())
            .unwrap_or_default()
    }
}

fn copied(elements: View<'_>) -> Bytes {
    let mut out = Vec::with_capacity(binary::size(elements));
    binary::write(&mut out, elements);
    out.into()
}

fn contents(elements: View<'_>) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match elements {
        View::Bool(values) => contents.bool_contents = values.to_vec(),
        View::Uint8(values) => contents.uint_contents = widen(values),
        View::Uint16(values) => contents.uint_contents = widen(values),
        View::Uint32(values) => contents.uint_contents = values.to_vec(),
        View::Uint64(values) => contents.uint64_contents = values.to_vec(),
        View::Int8(values) => contents.int_contents = widen(values),
        View::Int16(values) => contents.int_contents = widen(values),
        View::Int32(values) => contents.int_contents = values.to_vec(),
        View::Int64(values) => contents.int64_contents = values.to_vec(),
        View::Fp32(values) => contents.fp32_contents = values.to_vec(),
        View::Fp64(values) => contents.fp64_contents = values.to_vec(),
        View::Bytes(values) => {
            let bytes = values
                .iter()
                .map(|text| Bytes::copy_from_slice(text.as_bytes()));
            contents.bytes_contents = bytes.collect();
        }
        // These have no contents: `request` has asked for the raw form.
        View::Fp16(_) | View::Bf16(_) => {}
    }
    contents
}

fn widen<N: Copy + Into<W>, W>(values: &[N]) -> Vec<W> {
    values.iter().map(|value| (*value).into()).collect()
}
