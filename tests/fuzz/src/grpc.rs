//! Calls of gRPC.
//!
//! What must hold: a `grpc-status` of the documented list; what is no message of its call is INVALID_ARGUMENT;
//! INTERNAL only where the frame itself is broken, never UNKNOWN; an answer with OK has a whole frame.

use axum::body::Body;
use http::{HeaderValue, Request, Version, header};
use ortolan_server::grpc::proto;
use prost::Message;

use crate::world::{Answer, world};

/// OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION,
/// UNIMPLEMENTED.
const CODES: [u16; 8] = [0, 3, 4, 5, 7, 8, 9, 12];
const INVALID_ARGUMENT: u16 = 3;
const INTERNAL: u16 = 13;

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
/// Most of what can go wrong goes wrong in the first.
const CALLS: [&str; 16] = [
    INFER,
    INFER,
    INFER,
    INFER,
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/inference.GRPCInferenceService/ModelReady",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelConfig",
    "/inference.GRPCInferenceService/ModelStatistics",
    "/inference.GRPCInferenceService/RepositoryIndex",
    "/inference.GRPCInferenceService/RepositoryModelLoad",
    "/inference.GRPCInferenceService/RepositoryModelUnload",
    "/inference.GRPCInferenceService/TraceSetting",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The first byte chooses the call, and whether the rest is a message, frames of one's own, or a packed message.
pub fn call(bytes: &[u8]) -> bool {
    let Some((choice, rest)) = bytes.split_first() else {
        return false;
    };
    let path = CALLS[usize::from(choice % 16)];
    let (body, coding) = match choice / 16 % 8 {
        0..=4 => (framed(rest, 0), None),
        5 => (rest.to_vec(), None),
        6 => (framed(rest, 1), Some("gzip")),
        _ => (framed(rest, 1), Some("zstd")),
    };
    let is_plain = choice / 16 % 8 <= 4;
    let mut request = Request::post(path)
        .version(Version::HTTP_2)
        .body(Body::from(body));
    if let Ok(request) = &mut request {
        let headers = request.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert("te", HeaderValue::from_static("trailers"));
        if let Some(coding) = coding {
            headers.insert("grpc-encoding", HeaderValue::from_static(coding));
        }
    }
    let answer = world().ask(request.expect("a path of ours"));
    let code = code(&answer);
    let is_documented = CODES.contains(&code) || (code == INTERNAL && !is_plain);
    assert!(
        is_documented,
        "{path}: {code} {:?} {:?}",
        answer.headers, answer.trailers
    );
    if path == INFER && is_plain {
        let is_message = proto::ModelInferRequest::decode(rest).is_ok();
        assert!(
            is_message || code == INVALID_ARGUMENT,
            "{code} for what is no message"
        );
    }
    if path == INFER && code == 0 {
        is_whole(&answer);
    }
    code == 0
}

fn framed(message: &[u8], flag: u8) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a small message");
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

fn code(answer: &Answer) -> u16 {
    assert_eq!(answer.status, 200, "gRPC's codes are its own");
    let named = answer
        .headers
        .get("grpc-status")
        .or(answer.trailers.get("grpc-status"));
    let code = named.and_then(|code| code.to_str().ok()?.parse().ok());
    code.expect("an answer with a grpc-status")
}

fn is_whole(answer: &Answer) {
    let Some(([flag, length @ ..], message)) = answer.body.split_first_chunk::<5>() else {
        panic!("OK without a message");
    };
    assert_eq!(u32::from_be_bytes(*length) as usize, message.len());
    if *flag == 0 {
        proto::ModelInferResponse::decode(message).expect("an answer that decodes");
    }
}
