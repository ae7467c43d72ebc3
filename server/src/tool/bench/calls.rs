//! What is sent over gRPC: `ModelInfer` with raw tensors, made from the model's metadata or a file; or the user's own
//! messages to a method of their choice.

use std::fs;

use bytes::Bytes;
use prost::Message;

use super::{
    Options,
    address::Base,
    client::Wire,
    grpc::{Connection, framed, head},
    request::{Input, Metadata, Requests, append_raw, random},
};
use crate::{
    grpc::proto::{
        ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse,
        model_infer_request::InferInputTensor,
    },
    tool::{
        Refusal,
        inputs::{self, Feed},
    },
};

const SERVICE: &str = "/inference.GRPCInferenceService";
/// One byte for compression, four for the length.
const FRAME: usize = 5;

/// Makes the calls; may ask the server for the model's metadata.
pub(super) async fn make(options: &Options, base: &Base) -> Result<Requests, Refusal> {
    let (messages, words) = if options.bodies.is_empty() {
        infer(options, base).await?
    } else {
        own(options)?
    };
    let method = options
        .path
        .clone()
        .unwrap_or_else(|| format!("{SERVICE}/ModelInfer"));
    let head = head(&base.host, &method, &options.headers)
        .map_err(|error| Refusal::Data(format!("--path {method:?} names no method: {error}")))?;
    let bytes: usize = messages.iter().map(Vec::len).sum();
    Ok(Requests {
        wire: Wire::Grpc {
            head: Box::new(head),
            streams: options.streams as usize,
        },
        body_bytes: bytes / messages.len().max(1),
        whole: messages
            .iter()
            .map(|message| Bytes::from(framed(message)))
            .collect(),
        line: format!("gRPC {}{method}", base.host),
        words,
    })
}

/// The user's own messages.
fn own(options: &Options) -> Result<(Vec<Vec<u8>>, String), Refusal> {
    let mut messages = Vec::new();
    for file in &options.bodies {
        let message = fs::read(file).map_err(|error| {
            Refusal::Data(format!("--body {} cannot be read: {error}", file.display()))
        })?;
        messages.push(message);
    }
    let names: Vec<String> = options
        .bodies
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    Ok((messages, format!("{} as a message", names.join(", "))))
}

async fn infer(options: &Options, base: &Base) -> Result<(Vec<Vec<u8>>, String), Refusal> {
    let Some(model) = &options.model else {
        return Err(Refusal::Data(
            "which model? Give --model NAME, or --body FILE".to_owned(),
        ));
    };
    let version = options.model_version.as_deref().unwrap_or_default();
    let (feeds, words) = match &options.inputs.data {
        Some(file) => (inputs::read(file)?, file.display().to_string()),
        None => random(&metadata(options, base, model, version).await?, options)?,
    };
    let messages = feeds.iter().map(|feed| message(model, version, feed));
    Ok((messages.collect(), format!("{words} as raw tensors")))
}

fn message(model: &str, version: &str, feed: &Feed) -> Vec<u8> {
    let inputs = feed.iter().map(|named| InferInputTensor {
        name: named.name.clone(),
        datatype: named.datatype.as_str().to_owned(),
        shape: named.tensor.shape.clone(),
        ..InferInputTensor::default()
    });
    let raw = feed.iter().map(|named| {
        let mut bytes = Vec::new();
        append_raw(&named.tensor, &mut bytes);
        Bytes::from(bytes)
    });
    let request = ModelInferRequest {
        model_name: model.to_owned(),
        model_version: version.to_owned(),
        inputs: inputs.collect(),
        raw_input_contents: raw.collect(),
        ..ModelInferRequest::default()
    };
    request.encode_to_vec()
}

async fn metadata(
    options: &Options,
    base: &Base,
    model: &str,
    version: &str,
) -> Result<Metadata, Refusal> {
    let line = format!("gRPC {}{SERVICE}/ModelMetadata", base.host);
    let refused = |why: String| Refusal::Target(format!("{line}: {why}"));
    let head = head(
        &base.host,
        &format!("{SERVICE}/ModelMetadata"),
        &options.headers,
    )
    .map_err(|error| refused(error.to_string()))?;
    let request = ModelMetadataRequest {
        name: model.to_owned(),
        version: version.to_owned(),
    };
    let mut connection = Connection::new(base.address);
    let call = connection.call(&head, framed(&request.encode_to_vec()).into());
    let called = tokio::time::timeout(options.timeout, call)
        .await
        .map_err(|_| refused(format!("no answer within {:?}", options.timeout)))?
        .map_err(|broken| refused(format!("{broken}; is this the server's gRPC port?")))?;
    if called.code != 0 {
        return Err(refused(format!("code {}: {}", called.code, called.words)));
    }
    let message = called.message.get(FRAME..).unwrap_or_default();
    let metadata = ModelMetadataResponse::decode(message)
        .map_err(|error| refused(format!("the answer is no metadata: {error}")))?;
    let inputs = metadata.inputs.into_iter().map(|input| Input {
        name: input.name,
        datatype: input.datatype,
        shape: input.shape,
    });
    Ok(Metadata {
        inputs: inputs.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dtype::DataType,
        tensor::{Elements, Tensor},
        tool::inputs::NamedTensor,
    };

    #[test]
    fn a_message_carries_each_tensor_raw_and_in_order() {
        let named = |name: &str, datatype, elements| NamedTensor {
            name: name.into(),
            datatype,
            tensor: Tensor {
                shape: vec![1],
                elements,
            },
        };
        let feed = vec![
            named("x", DataType::Fp32, Elements::Fp32(vec![1.5])),
            named("t", DataType::Bytes, Elements::Bytes(vec!["a".into()])),
        ];
        let read = ModelInferRequest::decode(message("m", "7", &feed).as_slice()).unwrap();
        assert_eq!(
            (read.model_name.as_str(), read.model_version.as_str()),
            ("m", "7")
        );
        let inputs: Vec<_> = read
            .inputs
            .iter()
            .map(|input| {
                (
                    input.name.as_str(),
                    input.datatype.as_str(),
                    input.shape.as_slice(),
                )
            })
            .collect();
        assert_eq!(inputs, [("x", "FP32", &[1_i64][..]), ("t", "BYTES", &[1])]);
        assert_eq!(read.raw_input_contents[0], 1.5_f32.to_le_bytes().as_slice());
        assert_eq!(read.raw_input_contents[1], &[1, 0, 0, 0, b'a'][..]);
    }
}
