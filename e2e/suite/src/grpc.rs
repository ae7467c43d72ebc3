//! gRPC on the Service's own port, from a pod in the cluster: the load generator carries the messages, and
//! what they mean stands here.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kube::Client;
use ortolan_e2e_load::{Call, Called, Order, Way};
use prost::Message;
pub use tonic_health::pb as health;

use crate::{Failure, Load, Result, Service, check, fail, load};

/// The messages of `server/proto`.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod inference {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

/// A tiny model's input `[1, 2, 3, 4]`, raw.
#[must_use]
pub fn tiny(model: &str, id: &str) -> inference::ModelInferRequest {
    let raw: Vec<u8> = [1_f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    inference::ModelInferRequest {
        model_name: model.into(),
        id: id.into(),
        inputs: vec![inference::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 4],
            ..Default::default()
        }],
        raw_input_contents: vec![raw],
        ..Default::default()
    }
}

/// The numbers of an answer's first output.
///
/// # Errors
/// When it has none of FP32, raw.
pub fn floats(answer: &inference::ModelInferResponse) -> Result<Vec<f32>> {
    let is_float = answer.outputs.first().is_some_and(|o| o.datatype == "FP32");
    match (is_float, answer.raw_output_contents.as_slice()) {
        (true, [raw]) => Ok(raw
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect()),
        _ => fail(format!("one raw output of FP32 was expected: {answer:?}")),
    }
}

/// Reads an answer that a [`Load`] counted.
///
/// # Errors
/// When it is none.
pub fn counted(answer: &str) -> Result<inference::ModelInferResponse> {
    decoded(answer)
}

fn decoded<A: Message + Default>(message: &str) -> Result<A> {
    let wrong = |error: String| Failure::Wrong(format!("no message of the call: {error}"));
    let bytes = BASE64_STANDARD
        .decode(message)
        .map_err(|error| wrong(error.to_string()))?;
    A::decode(bytes.as_slice()).map_err(|error| wrong(error.to_string()))
}

/// How a call ended.
#[derive(Debug)]
pub struct Ended<A> {
    /// The status, 0 for OK.
    pub code: i32,
    /// Its sentence.
    pub sentence: String,
    /// What was answered until then.
    pub answers: Vec<A>,
}

impl<A> Ended<A> {
    /// The answers, of a call that ended with OK.
    ///
    /// # Errors
    /// When it did not.
    pub fn ok(self) -> Result<Vec<A>> {
        check(self.code == 0, || {
            format!("OK was expected: {} {}", self.code, self.sentence)
        })?;
        Ok(self.answers)
    }

    /// The one answer of a unary call that ended with OK.
    ///
    /// # Errors
    /// When it did not, or there is not one.
    pub fn one(self) -> Result<A> {
        let mut answers = self.ok()?;
        match (answers.pop(), answers.len()) {
            (Some(answer), 0) => Ok(answer),
            _ => fail("one answer was expected"),
        }
    }
}

/// The path of an inference.
pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// One call from a pod in the cluster.
pub(crate) async fn call<Q: Message, A: Message + Default>(
    client: &Client,
    url: String,
    way: Way,
    messages: &[Q],
) -> Result<Ended<A>> {
    let messages = messages
        .iter()
        .map(|message| BASE64_STANDARD.encode(message.encode_to_vec()))
        .collect();
    let called: Called = load::call(client, &Call { url, way, messages }).await?;
    let answers = called.messages.iter().map(|message| decoded(message));
    Ok(Ended {
        code: called.code,
        sentence: called.message,
        answers: answers.collect::<Result<_>>()?,
    })
}

/// Load by gRPC on a tiny model.
pub(crate) fn order(model: &str, url: String) -> Order {
    let message = tiny(model, "").encode_to_vec();
    Order {
        bodies: Vec::new(),
        body: None,
        message: Some(BASE64_STANDARD.encode(message)),
        ..Load::order(url)
    }
}

impl Service {
    /// One gRPC call: all messages are sent, then the answers are read to the end.
    ///
    /// # Errors
    /// When there is no answer; a status of any kind is one.
    pub async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        messages: &[Q],
    ) -> Result<Ended<A>> {
        let url = self.url(&format!("/{method}"));
        call(&self.client, url, Way::default(), messages).await
    }

    /// Load by gRPC through the Service's own address, on a tiny model; [`counted`] reads the answers.
    ///
    /// # Errors
    /// When the generator cannot be told.
    pub async fn grpc_load(&self) -> Result<Load> {
        Load::start(&self.client, &order(&self.name, self.url(INFER))).await
    }
}
