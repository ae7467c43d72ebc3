//! Requests of REST.
//!
//! What must hold: a code of the documented list, and never 500, nor 503, because these models are ready and one
//! request is in flight; an error is `{"error": "<sentence>"}`; JSON that is none is never answered with 200, and
//! an answer of JSON is JSON whose outputs have as many elements as their shapes say.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::world::{Answer, MAX_BODY, names, world};

/// The codes of docs/server.md, without 500 (ours) and 503 (not ready, or busy).
const CODES: [u16; 11] = [200, 400, 403, 404, 405, 408, 409, 413, 415, 422, 504];
const JSON_LENGTH: &str = "inference-header-content-length";

/// A whole request as text: `METHOD PATH`, a line for each header, an empty line, the body.
pub fn any(bytes: &[u8]) -> bool {
    let (head, body) = match find(bytes, b"\n\n") {
        Some(at) => (&bytes[..at], &bytes[at + 2..]),
        None => (bytes, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut first = lines
        .next()
        .unwrap_or_default()
        .splitn(2, |byte| *byte == b' ');
    let method = Method::from_bytes(first.next().unwrap_or_default());
    let path = Uri::try_from(first.next().unwrap_or_default());
    let (Ok(method), Ok(path)) = (method, path) else {
        return false;
    };
    let mut request = Request::new(Body::from(body.to_vec()));
    (*request.method_mut(), *request.uri_mut()) = (method, path);
    // hyper takes no more lines than that.
    for line in lines.take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return false;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        let (Ok(name), Ok(value)) = (name, value) else {
            return false;
        };
        request.headers_mut().append(name, value);
    }
    judge(request)
}

/// A V2 request as JSON: the first byte chooses the model, the rest is the body.
pub fn v2(bytes: &[u8]) -> bool {
    let Some((choice, body)) = bytes.split_first() else {
        return false;
    };
    let taken = judge(post(&infer(*choice), body));
    if taken {
        let read: Result<IgnoredAny, _> = serde_json::from_slice(body);
        assert!(read.is_ok(), "200 for what is not JSON: {read:?}");
    }
    taken
}

/// A V2 request with tensors behind its JSON: the model, how long the JSON is (little endian), the body.
pub fn tensors(bytes: &[u8]) -> bool {
    let Some(([choice, low, high], body)) = bytes.split_first_chunk() else {
        return false;
    };
    let mut request = post(&infer(*choice), body);
    let length = u16::from_le_bytes([*low, *high]);
    request.headers_mut().insert(JSON_LENGTH, length.into());
    judge(request)
}

/// A packed body: the first byte chooses how, and whether the answer may be packed, too.
pub fn packed(bytes: &[u8]) -> bool {
    let Some((choice, body)) = bytes.split_first() else {
        return false;
    };
    let coding = ["gzip", "deflate", "zstd"][usize::from(choice % 3)];
    let mut request = post("/v2/models/free/infer", body);
    let coding = HeaderValue::from_static(coding);
    request
        .headers_mut()
        .insert(header::CONTENT_ENCODING, coding.clone());
    if *choice >= 128 {
        request
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, coding);
    }
    judge(request)
}

/// The body of a pipeline: the first byte chooses which, and what the client calls it.
pub fn predict(bytes: &[u8]) -> bool {
    const KINDS: [&str; 6] = [
        "",
        "application/json",
        "text/plain",
        "text/csv",
        "text/csv; header=absent",
        "image/png",
    ];
    const PATHS: [&str; 6] = [
        "/predict/text",
        "/predict/rows",
        "/predict/bytes",
        "/predict/image",
        "/v1/embeddings",
        "/v1/models/rows:predict",
    ];
    let Some((choice, body)) = bytes.split_first() else {
        return false;
    };
    let choice = usize::from(*choice);
    let mut request = post(PATHS[choice % PATHS.len()], body);
    let kind = KINDS[choice / PATHS.len() % KINDS.len()];
    if !kind.is_empty() {
        let kind = HeaderValue::from_static(kind);
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    judge(request)
}

fn infer(choice: u8) -> String {
    let names = names();
    format!(
        "/v2/models/{}/infer",
        names[usize::from(choice) % names.len()]
    )
}

fn post(path: &str, body: &[u8]) -> Request<Body> {
    let request = Request::post(path).body(Body::from(body.to_vec()));
    request.expect("a path of ours")
}

fn judge(request: Request<Body>) -> bool {
    let is_head = request.method() == Method::HEAD;
    let is_grpc = ortolan_server::grpc::is_grpc(request.headers());
    let answer = world().ask(request);
    // gRPC needs HTTP/2, and a request here is one of HTTP/1.1.
    let code = answer.status.as_u16();
    let is_documented = CODES.contains(&code) || (is_grpc && code == 505);
    assert!(is_documented, "{code}: {}", text(&answer));
    if !is_head {
        is_what_it_says(&answer);
    }
    code == 200
}

fn is_what_it_says(answer: &Answer) {
    assert!(
        answer.body.len() < 4 * MAX_BODY,
        "{} bytes",
        answer.body.len()
    );
    if answer.headers.contains_key(header::CONTENT_ENCODING) {
        return;
    }
    let kind = answer.headers.get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !answer.status.is_success() {
        let body: Result<Value, _> = serde_json::from_slice(&answer.body);
        let sentence = body
            .ok()
            .and_then(|body| body["error"].as_str().map(str::len));
        assert!(
            sentence.is_some_and(|length| length > 0),
            "{}",
            text(answer)
        );
    } else if is_json && !answer.body.is_empty() {
        let body: Result<Value, _> = serde_json::from_slice(&answer.body);
        let body = body.unwrap_or_else(|error| panic!("{error}: {}", text(answer)));
        for output in body["outputs"].as_array().into_iter().flatten() {
            let (Some(shape), Some(data)) = (output["shape"].as_array(), output["data"].as_array())
            else {
                continue;
            };
            let count: i64 = shape.iter().filter_map(Value::as_i64).product();
            assert_eq!(count, data.len() as i64, "{}", text(answer));
        }
    }
}

fn text(answer: &Answer) -> String {
    let shown = &answer.body[..answer.body.len().min(2000)];
    String::from_utf8_lossy(shown).into_owned()
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
