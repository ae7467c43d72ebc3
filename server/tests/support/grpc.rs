//! Requests over gRPC.

use bytes::Bytes;
use ortolan_server::grpc::proto::{ModelInferRequest, model_infer_request::InferInputTensor};

/// An input of the request, its bytes beside it.
pub fn tensor(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

/// A request of the model `m` with the one input `x`.
pub fn raw(datatype: &str, shape: &[i64], bytes: impl Into<Bytes>) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![tensor("x", datatype, shape)],
        raw_input_contents: vec![bytes.into()],
        ..ModelInferRequest::default()
    }
}

pub fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}
