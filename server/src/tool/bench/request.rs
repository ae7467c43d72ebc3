//! What is sent: V2 inference requests made from a model's metadata or from a file, as JSON or with binary tensors; or
//! the user's own bodies to a path of their choice.

use std::{fmt::Write as _, fs, path::PathBuf};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Options, address::Base, calls, client::Wire, http::Connection};
use crate::{
    dtype::DataType,
    tensor::{Elements, Tensor, View},
    tool::{
        Refusal,
        inputs::{self, Feed},
    },
};

/// Different random requests, so that a cache does not answer them all.
const DIFFERENT: usize = 16;
/// Large ones are made fewer.
const MOST_BYTES: usize = 64 << 20;
/// Metadata of a model with thousands of inputs is still smaller.
const METADATA: usize = 4 << 20;

/// Requests, ready to be sent.
#[derive(Debug)]
pub struct Requests {
    /// HTTP/1.1, or gRPC with the head of its calls.
    pub wire: Wire,
    /// As they go on the wire: heads and bodies, or framed messages.
    pub whole: Vec<Bytes>,
    /// `POST /v2/models/m/infer`
    pub line: String,
    /// What they hold, for the report.
    pub words: String,
    /// The mean length of a body.
    pub body_bytes: usize,
}

/// A body with the headers that it needs.
struct Body {
    bytes: Vec<u8>,
    headers: Vec<(String, String)>,
}

/// Makes the requests; may ask the server for the model's metadata.
pub async fn make(options: &Options, base: &Base) -> Result<Requests, Refusal> {
    if options.grpc {
        return calls::make(options, base).await;
    }
    let (path, bodies, words) = if options.bodies.is_empty() {
        infer(options, base).await?
    } else {
        own(options)?
    };
    let path = format!("{}{path}", base.prefix);
    let whole: Result<Vec<_>, _> = bodies
        .iter()
        .map(|body| assemble("POST", &path, base, body, &options.headers).map(Bytes::from))
        .collect();
    Ok(Requests {
        wire: Wire::Http,
        whole: whole?,
        line: format!("POST http://{}{path}", base.host),
        words,
        body_bytes: bodies.iter().map(|body| body.bytes.len()).sum::<usize>() / bodies.len().max(1),
    })
}

fn assemble(
    method: &str,
    path: &str,
    base: &Base,
    body: &Body,
    more: &[Header],
) -> Result<Vec<u8>, Refusal> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    let is_given = |name: &str| {
        more.iter()
            .any(|header| header.name.eq_ignore_ascii_case(name))
    };
    let own = [
        ("host".to_owned(), base.host.clone()),
        (
            "user-agent".to_owned(),
            concat!("ortolan-bench/", env!("CARGO_PKG_VERSION")).to_owned(),
        ),
    ];
    let given = more.iter().map(|header| (&header.name, &header.value));
    let ours = own
        .iter()
        .chain(&body.headers)
        .map(|(name, value)| (name, value));
    for (name, value) in ours.filter(|(name, _)| !is_given(name)).chain(given) {
        // Writing to a String cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if method != "GET" {
        let _ = write!(head, "content-length: {}\r\n", body.bytes.len());
    }
    head.push_str("\r\n");
    if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Refusal::Data(format!(
            "the path {path:?} has spaces: write %20 for each"
        )));
    }
    Ok([head.as_bytes(), &body.bytes].concat())
}

/// The user's own bodies.
fn own(options: &Options) -> Result<(String, Vec<Body>, String), Refusal> {
    let path = match (&options.path, &options.model) {
        (Some(path), _) if path.starts_with('/') => path.clone(),
        (Some(path), _) => {
            return Err(Refusal::Data(format!(
                "--path {path:?} does not start with /"
            )));
        }
        (None, Some(model)) => format!("/predict/{model}"),
        (None, None) => {
            return Err(Refusal::Data(
                "--body needs to know where to: give --path /predict/x, or --model".to_owned(),
            ));
        }
    };
    let read = |file: &PathBuf| -> Result<Body, Refusal> {
        let bytes = fs::read(file).map_err(|error| {
            Refusal::Data(format!("--body {} cannot be read: {error}", file.display()))
        })?;
        Ok(Body {
            bytes,
            headers: vec![("content-type".to_owned(), options.content_type.clone())],
        })
    };
    let bodies: Result<Vec<Body>, Refusal> = options.bodies.iter().map(read).collect();
    let names: Vec<String> = options
        .bodies
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    Ok((
        path,
        bodies?,
        format!("{} as {}", names.join(", "), options.content_type),
    ))
}

/// V2 inference requests.
async fn infer(options: &Options, base: &Base) -> Result<(String, Vec<Body>, String), Refusal> {
    let Some(model) = &options.model else {
        return Err(Refusal::Data(
            "which model? Give --model NAME, or --body FILE with --path".to_owned(),
        ));
    };
    let mut resource = format!("/v2/models/{model}");
    if let Some(version) = &options.model_version {
        resource.push_str(&format!("/versions/{version}"));
    }
    let path = options
        .path
        .clone()
        .unwrap_or_else(|| format!("{resource}/infer"));
    let form = if options.binary {
        "binary tensors"
    } else {
        "JSON"
    };
    let (bodies, words) = match &options.inputs.data {
        // As they are: what else they hold (parameters, outputs) is the user's.
        Some(file) if !options.binary => (lines(file)?, file.display().to_string()),
        Some(file) => (
            inputs::read(file)?.iter().map(binary).collect(),
            file.display().to_string(),
        ),
        None => {
            let metadata = metadata(base, &resource, options).await?;
            let (feeds, words) = random(&metadata, options)?;
            let write = if options.binary { binary } else { text };
            (feeds.iter().map(write).collect(), words)
        }
    };
    Ok((path, bodies, format!("{words} as {form}")))
}

fn lines(file: &PathBuf) -> Result<Vec<Body>, Refusal> {
    // Read as requests first: what is wrong is told before anything is sent.
    inputs::read(file)?;
    let content = fs::read_to_string(file).map_err(|error| {
        Refusal::Data(format!("--data {} cannot be read: {error}", file.display()))
    })?;
    let lines = content.lines().filter(|line| !line.trim().is_empty());
    Ok(lines
        .map(|line| json_body(line.as_bytes().to_vec()))
        .collect())
}

fn json_body(bytes: Vec<u8>) -> Body {
    Body {
        bytes,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
    }
}

/// What a model says of its inputs.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub inputs: Vec<Input>,
}

/// One of them.
#[derive(Debug, Deserialize)]
pub(super) struct Input {
    pub name: String,
    pub datatype: String,
    pub shape: Vec<i64>,
}

async fn metadata(base: &Base, path: &str, options: &Options) -> Result<Metadata, Refusal> {
    let path = format!("{}{path}", base.prefix);
    let nothing = Body {
        bytes: Vec::new(),
        headers: Vec::new(),
    };
    let request = assemble("GET", &path, base, &nothing, &options.headers)?;
    let mut connection = Connection::new(base.address);
    let answered =
        tokio::time::timeout(options.timeout, connection.exchange(&request, |_| METADATA));
    let url = format!("http://{}{path}", base.host);
    let answer = answered
        .await
        .map_err(|_| {
            Refusal::Target(format!(
                "{url} does not answer within {:?}",
                options.timeout
            ))
        })?
        .map_err(|broken| Refusal::Target(format!("{url}: {broken}")))?;
    let body = String::from_utf8_lossy(&answer.body);
    if answer.status != 200 {
        let start: String = body.chars().take(200).collect();
        return Err(Refusal::Target(format!(
            "{url} answers {}: {}; without a model's metadata give requests with --data FILE.jsonl or --body FILE",
            answer.status,
            start.trim()
        )));
    }
    serde_json::from_str(&body)
        .map_err(|error| Refusal::Target(format!("{url} answers no model metadata: {error}")))
}

/// Random tensors as the metadata wants them.
pub(super) fn random(
    metadata: &Metadata,
    options: &Options,
) -> Result<(Vec<Feed>, String), Refusal> {
    let mut wanted = Vec::new();
    for input in &metadata.inputs {
        let datatype = DataType::from_name(&input.datatype).ok_or_else(|| {
            Refusal::Data(format!(
                "the input {:?} has the unknown datatype {:?}",
                input.name, input.datatype
            ))
        })?;
        wanted.push((input.name.as_str(), datatype, input.shape.as_slice()));
    }
    let is_free = |name: &str| {
        let input = wanted.iter().find(|(wanted, ..)| *wanted == name);
        input.is_some_and(|(_, _, shape)| shape.first() == Some(&-1))
    };
    let mut shapes = inputs::shapes(&options.inputs.shapes, wanted.iter().copied())?;
    if let Some(batch) = options.batch {
        for (name, _, shape) in &mut shapes {
            if !is_free(name) {
                return Err(Refusal::Data(format!(
                    "--batch {batch}: the first dimension of the input {name:?} is not free"
                )));
            }
            shape[0] = i64::from(batch);
        }
    }
    let one = shapes
        .iter()
        .map(|(_, _, shape)| crate::tensor::element_count(shape).unwrap_or(0) * 8)
        .sum::<usize>();
    let different = (MOST_BYTES / one.max(1)).clamp(1, DIFFERENT);
    let mut rng = fastrand::Rng::with_seed(inputs::SEED);
    let feeds = (0..different)
        .map(|_| inputs::random(&shapes, &mut rng))
        .collect();
    Ok((feeds, format!("random {}", inputs::show(&shapes))))
}

fn describe(feed: &Feed, at: usize) -> serde_json::Map<String, Json> {
    let named = &feed[at];
    let mut input = serde_json::Map::new();
    input.insert("name".to_owned(), json!(named.name));
    input.insert("datatype".to_owned(), json!(named.datatype));
    input.insert("shape".to_owned(), json!(named.tensor.shape));
    input
}

fn text(feed: &Feed) -> Body {
    let inputs: Vec<Json> = (0..feed.len())
        .map(|at| {
            let mut input = describe(feed, at);
            input.insert("data".to_owned(), numbers(&feed[at].tensor.elements));
            Json::Object(input)
        })
        .collect();
    json_body(json!({ "inputs": inputs }).to_string().into_bytes())
}

fn numbers(elements: &Elements) -> Json {
    match elements {
        Elements::Fp16(halves) => {
            json!(halves.iter().map(|half| half.to_f32()).collect::<Vec<_>>())
        }
        Elements::Bf16(halves) => {
            json!(halves.iter().map(|half| half.to_f32()).collect::<Vec<_>>())
        }
        // serde_json would write 0.1_f32 as 0.10000000149011612.
        Elements::Fp32(floats) => {
            Json::Array(floats.iter().map(|float| shortest(*float)).collect())
        }
        Elements::Bool(values) => json!(values),
        Elements::Uint8(values) => json!(values),
        Elements::Uint16(values) => json!(values),
        Elements::Uint32(values) => json!(values),
        Elements::Uint64(values) => json!(values),
        Elements::Int8(values) => json!(values),
        Elements::Int16(values) => json!(values),
        Elements::Int32(values) => json!(values),
        Elements::Int64(values) => json!(values),
        Elements::Fp64(values) => json!(values),
        Elements::Bytes(values) => json!(values),
    }
}

/// The double that is written as the float's own shortest digits.
fn shortest(float: f32) -> Json {
    json!(float.to_string().parse::<f64>().unwrap_or_default())
}

/// The header as JSON, then each tensor's bytes; answers come the same way.
fn binary(feed: &Feed) -> Body {
    let mut raw = Vec::new();
    let inputs: Vec<Json> = (0..feed.len())
        .map(|at| {
            let before = raw.len();
            append_raw(&feed[at].tensor, &mut raw);
            let mut input = describe(feed, at);
            input.insert(
                "parameters".to_owned(),
                json!({ "binary_data_size": raw.len() - before }),
            );
            Json::Object(input)
        })
        .collect();
    let header = json!({ "inputs": inputs, "parameters": { "binary_data_output": true } });
    let mut bytes = header.to_string().into_bytes();
    let headers = vec![
        (
            "content-type".to_owned(),
            "application/octet-stream".to_owned(),
        ),
        (
            "inference-header-content-length".to_owned(),
            bytes.len().to_string(),
        ),
    ];
    bytes.append(&mut raw);
    Body { bytes, headers }
}

/// A tensor as V2's binary data: little-endian numbers, BOOL one byte, BYTES each with its length before it.
pub(super) fn append_raw(tensor: &Tensor, into: &mut Vec<u8>) {
    match tensor.elements.view() {
        View::Bytes(texts) => {
            for text in texts {
                into.extend_from_slice(&(text.len() as u32).to_le_bytes());
                into.extend_from_slice(text.as_bytes());
            }
        }
        numbers => into.extend_from_slice(numbers.bytes().unwrap_or_default()),
    }
}

/// `Name: value`, as it goes on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// A valid name.
    pub name: String,
    /// A valid value.
    pub value: String,
}

impl std::str::FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no header: write 'Name: value'");
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let (name, value) = (name.trim(), value.trim());
        HeaderName::try_from(name).map_err(|_| wrong())?;
        HeaderValue::try_from(value).map_err(|_| wrong())?;
        if ["content-length", "transfer-encoding", "connection"]
            .iter()
            .any(|taken| name.eq_ignore_ascii_case(taken))
        {
            return Err(format!("the header {name} is set by bench itself"));
        }
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
