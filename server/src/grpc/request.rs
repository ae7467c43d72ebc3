//! From a `ModelInferRequest` to tensors in the model's order.
//!
//! Raw contents are copied once, into a typed buffer; typed contents are moved where the message has a
//! field of the same width, and checked and narrowed where it has not.

use std::{borrow::Cow, collections::HashMap};

use super::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
};
use crate::{
    binary,
    dtype::DataType,
    oip::{self, Inputs, Wanted},
    parameters::{self, OfOutput, OfRequest, Parameters, Value},
    signature::{Signature, show_shape},
    tensor::{Elements, Tensor},
};

/// A request that fits the model.
pub(super) struct Asked {
    /// In the model's order.
    pub inputs: Vec<Option<Tensor>>,
    /// In the answer's order. `binary` is the same for all: the protocol knows no mixed answers.
    pub wanted: Vec<Wanted>,
    /// The rest.
    pub parameters: OfRequest,
}

/// Reads and checks a request.
pub(super) fn read(message: &mut ModelInferRequest, model: &Signature) -> Result<Asked, String> {
    let parameters = OfRequest::read(&of(&message.parameters))?;
    let raw = &message.raw_input_contents;
    let is_raw = !raw.is_empty();
    if is_raw && raw.len() != message.inputs.len() {
        return Err(format!(
            "there are {} raw_input_contents for {} inputs; expected one for each, in the same order",
            raw.len(),
            message.inputs.len()
        ));
    }
    // A client that sends typed contents reads typed contents; FP16 and BF16 have none.
    let binary = parameters
        .binary
        .unwrap_or(is_raw || message.inputs.is_empty());
    let mut inputs = Inputs::new(model);
    for (place, input) in message.inputs.iter_mut().enumerate() {
        // KServe's client says over gRPC, too, how long the bytes are; here each entry knows its length.
        parameters::binary_size(&of(&input.parameters))?;
        read_input(input, raw.get(place).map(AsRef::as_ref), &mut inputs)?;
    }
    let named = message.outputs.iter().map(|output| {
        let parameters = OfOutput::read(&of(&output.parameters))?;
        Ok((output.name.as_str(), parameters))
    });
    let mut wanted = oip::wanted(model, named, binary)?;
    let is_raw = wanted.iter().any(|output| {
        let spec = &model.outputs[output.index];
        let has_no_contents = matches!(spec.datatype, DataType::Fp16 | DataType::Bf16);
        output.binary || (has_no_contents && output.classes.is_none())
    });
    for output in &mut wanted {
        output.binary = is_raw;
    }
    Ok(Asked {
        inputs: inputs.finish()?,
        wanted,
        parameters,
    })
}

fn read_input(
    input: &mut InferInputTensor,
    raw: Option<&[u8]>,
    inputs: &mut Inputs<'_>,
) -> Result<(), String> {
    let name = &input.name;
    let declared = inputs.declare(name, &input.datatype, &input.shape)?;
    let elements = match (raw, input.contents.take()) {
        (Some(_), Some(_)) => Err(
            "it has contents, and the request has raw_input_contents; send one of the two"
                .to_owned(),
        ),
        (Some(raw), None) => binary::read(raw, declared.spec.datatype, declared.count)
            .map_err(|error| error.to_string()),
        (None, contents) => typed(
            contents.unwrap_or_default(),
            declared.spec.datatype,
            declared.count,
        ),
    };
    let elements = elements.map_err(|why| format!("input {name:?}: {why}"))?;
    if elements.len() != declared.count {
        return Err(format!(
            "input {name:?} has {} elements, expected {} for the shape {}",
            elements.len(),
            declared.count,
            show_shape(&input.shape)
        ));
    }
    let tensor = Tensor {
        shape: std::mem::take(&mut input.shape),
        elements,
    };
    inputs.take(&declared, tensor);
    Ok(())
}

/// The elements, from the field of their datatype.
fn typed(
    contents: InferTensorContents,
    datatype: DataType,
    count: usize,
) -> Result<Elements, String> {
    let Some(field) = field_of(datatype) else {
        if count == 0 {
            return Ok(Elements::with_capacity(datatype, 0));
        }
        return Err(format!(
            "{datatype} has no typed contents; send its elements in raw_input_contents"
        ));
    };
    if let Some(other) = filled(&contents).into_iter().find(|name| *name != field) {
        return Err(format!(
            "{datatype} goes into the contents' field {field}, and {other} is filled"
        ));
    }
    Ok(match datatype {
        DataType::Bool => Elements::Bool(contents.bool_contents),
        DataType::Uint8 => Elements::Uint8(narrow(contents.uint_contents, datatype)?),
        DataType::Uint16 => Elements::Uint16(narrow(contents.uint_contents, datatype)?),
        DataType::Uint32 => Elements::Uint32(contents.uint_contents),
        DataType::Uint64 => Elements::Uint64(contents.uint64_contents),
        DataType::Int8 => Elements::Int8(narrow(contents.int_contents, datatype)?),
        DataType::Int16 => Elements::Int16(narrow(contents.int_contents, datatype)?),
        DataType::Int32 => Elements::Int32(contents.int_contents),
        DataType::Int64 => Elements::Int64(contents.int64_contents),
        DataType::Fp32 => Elements::Fp32(contents.fp32_contents),
        DataType::Fp64 => Elements::Fp64(contents.fp64_contents),
        DataType::Bytes => Elements::Bytes(texts(&contents.bytes_contents)?),
        DataType::Fp16 | DataType::Bf16 => Elements::with_capacity(datatype, 0),
    })
}

/// The contents' field for a datatype.
pub(super) const fn field_of(datatype: DataType) -> Option<&'static str> {
    Some(match datatype {
        DataType::Bool => "bool_contents",
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => "uint_contents",
        DataType::Uint64 => "uint64_contents",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
        DataType::Int64 => "int64_contents",
        DataType::Fp32 => "fp32_contents",
        DataType::Fp64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::Fp16 | DataType::Bf16 => return None,
    })
}

fn filled(contents: &InferTensorContents) -> Vec<&'static str> {
    let fields = [
        ("bool_contents", contents.bool_contents.is_empty()),
        ("int_contents", contents.int_contents.is_empty()),
        ("int64_contents", contents.int64_contents.is_empty()),
        ("uint_contents", contents.uint_contents.is_empty()),
        ("uint64_contents", contents.uint64_contents.is_empty()),
        ("fp32_contents", contents.fp32_contents.is_empty()),
        ("fp64_contents", contents.fp64_contents.is_empty()),
        ("bytes_contents", contents.bytes_contents.is_empty()),
    ];
    let filled = fields.into_iter().filter(|(_, is_empty)| !is_empty);
    filled.map(|(name, _)| name).collect()
}

fn narrow<W, N>(wide: Vec<W>, datatype: DataType) -> Result<Vec<N>, String>
where
    W: Copy + std::fmt::Display,
    N: TryFrom<W>,
{
    let narrow = |(index, value): (usize, W)| {
        N::try_from(value)
            .map_err(|_| format!("element {index} is {value}, which {datatype} cannot hold"))
    };
    wide.into_iter().enumerate().map(narrow).collect()
}

fn texts(elements: &[bytes::Bytes]) -> Result<Vec<String>, String> {
    let text = |(index, bytes): (usize, &bytes::Bytes)| {
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| binary::BinaryError::NoText { index }.to_string())
    };
    elements.iter().enumerate().map(text).collect()
}

fn of(parameters: &HashMap<String, InferParameter>) -> Parameters<'_> {
    let value = |parameter: &'_ InferParameter| match &parameter.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Value::Bool(*value),
        Some(ParameterChoice::Int64Param(value)) => Value::Int(*value),
        Some(ParameterChoice::Uint64Param(value)) => Value::Uint(*value),
        Some(ParameterChoice::DoubleParam(value)) => Value::Float(*value),
        Some(ParameterChoice::StringParam(text)) => Value::Text(Cow::Owned(text.clone())),
        None => Value::Other,
    };
    let pairs = parameters.iter();
    pairs
        .map(|(name, parameter)| (Cow::Borrowed(name.as_str()), value(parameter)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::TensorSpec;

    fn model(datatype: DataType) -> Signature {
        let spec = |name: &str| TensorSpec {
            name: name.into(),
            datatype,
            shape: vec![-1],
            optional: false,
        };
        Signature {
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
            opset: 17,
        }
    }

    fn request(datatype: DataType, count: i64) -> ModelInferRequest {
        ModelInferRequest {
            inputs: vec![InferInputTensor {
                name: "x".into(),
                datatype: datatype.as_str().into(),
                shape: vec![count],
                ..InferInputTensor::default()
            }],
            ..ModelInferRequest::default()
        }
    }

    fn with(
        datatype: DataType,
        count: i64,
        contents: InferTensorContents,
    ) -> Result<Asked, String> {
        let mut message = request(datatype, count);
        message.inputs[0].contents = Some(contents);
        read(&mut message, &model(datatype))
    }

    fn elements(asked: &Asked) -> &Elements {
        &asked.inputs[0].as_ref().unwrap().elements
    }

    #[test]
    fn typed_contents_are_narrowed_to_their_datatype() {
        let ints = |values: &[i32]| InferTensorContents {
            int_contents: values.to_vec(),
            ..InferTensorContents::default()
        };
        let asked = with(DataType::Int8, 2, ints(&[-128, 127])).unwrap();
        assert_eq!(elements(&asked), &Elements::Int8(vec![-128, 127]));
        assert!(!asked.wanted[0].binary, "asked typed, answered typed");
        for (datatype, count, contents, part) in [
            (
                DataType::Int8,
                2,
                ints(&[0, 128]),
                "element 1 is 128, which INT8",
            ),
            (DataType::Int16, 1, ints(&[40_000]), "element 0 is 40000"),
            (DataType::Int32, 3, ints(&[1, 2]), "2 elements, expected 3"),
            (
                DataType::Fp32,
                1,
                ints(&[1]),
                "fp32_contents, and int_contents is filled",
            ),
            (DataType::Fp16, 1, ints(&[]), "raw_input_contents"),
            (
                DataType::Int64,
                1,
                InferTensorContents::default(),
                "0 elements, expected 1",
            ),
        ] {
            let sentence = with(datatype, count, contents).err().unwrap();
            assert!(sentence.contains(part), "{sentence}");
        }
        let text = InferTensorContents {
            bytes_contents: vec![
                bytes::Bytes::from_static(b"ok"),
                bytes::Bytes::from_static(&[0xff]),
            ],
            ..InferTensorContents::default()
        };
        let sentence = with(DataType::Bytes, 2, text).err().unwrap();
        assert!(sentence.contains("element 1 is not UTF-8"), "{sentence}");
    }

    #[test]
    fn raw_contents_exclude_typed_ones_and_come_one_for_each_input() {
        let mut message = request(DataType::Fp16, 2);
        message.raw_input_contents = vec![bytes::Bytes::from_static(&[0, 60, 0, 64])];
        // As KServe's client sends it.
        let size = InferParameter {
            parameter_choice: Some(ParameterChoice::Int64Param(4)),
        };
        message.inputs[0]
            .parameters
            .insert("binary_data_size".into(), size);
        let asked = read(&mut message.clone(), &model(DataType::Fp16)).unwrap();
        assert!(asked.wanted[0].binary, "asked raw, answered raw");
        assert_eq!(elements(&asked).len(), 2);
        let mut both = message.clone();
        both.inputs[0].contents = Some(InferTensorContents::default());
        let sentence = read(&mut both, &model(DataType::Fp16)).err().unwrap();
        assert!(sentence.contains("send one of the two"), "{sentence}");
        let mut short = message.clone();
        short.raw_input_contents[0] = bytes::Bytes::from_static(&[0, 60, 0]);
        let sentence = read(&mut short, &model(DataType::Fp16)).err().unwrap();
        assert!(sentence.contains("has 3 bytes"), "{sentence}");
        message.raw_input_contents.push(bytes::Bytes::new());
        let sentence = read(&mut message, &model(DataType::Fp16)).err().unwrap();
        assert!(
            sentence.contains("2 raw_input_contents for 1 inputs"),
            "{sentence}"
        );
    }

    #[test]
    fn a_type_without_contents_makes_the_whole_answer_raw() {
        let asked = with(DataType::Fp16, 0, InferTensorContents::default()).unwrap();
        assert!(asked.wanted[0].binary);
    }
}
