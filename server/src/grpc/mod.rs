//! The Open Inference Protocol over gRPC, with health and reflection.
//!
//! Inputs: HTTP/2 requests that a connection has told apart by their content type. Outputs: gRPC
//! answers. Invariants: a message is bounded before it is held, packed or not; a message that is none is
//! INVALID_ARGUMENT; every other refusal has the code of [`status`].

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as HttpBody;
use tonic::{
    Code, Status,
    body::Body,
    codec::CompressionEncoding,
    codegen::{Service as _, StdError},
    service::Routes,
};

use self::{proto::grpc_inference_service_server::GrpcInferenceServiceServer, service::Service};
use crate::app::App;

mod answer;
pub mod codec;
mod health;
mod request;
mod service;
mod status;

/// The messages and the service, from `proto/`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)] // generated
pub mod proto {
    tonic::include_proto!("inference");

    /// What reflection shows of them.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));
}

const INFERENCE: &str = "/inference.GRPCInferenceService/";

/// When a request's head arrived; connections put it into the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Arrived(pub Instant);

/// Every gRPC service of the server. Cheap to clone.
#[derive(Clone)]
pub struct Grpc {
    plain: GrpcInferenceServiceServer<Service>,
    /// The same, with answers packed: for clients that pack their requests. All clients of some libraries say
    /// that they would take packed answers, and packing numbers costs more than it saves.
    packing: GrpcInferenceServiceServer<Service>,
    others: Routes,
    max_message: usize,
}

impl Grpc {
    /// The services of an app.
    pub fn new(app: &Arc<App>) -> Result<Self, tonic_reflection::server::Error> {
        let plain = GrpcInferenceServiceServer::new(Service::new(Arc::clone(app)))
            .max_decoding_message_size(app.max_body)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let packing = plain
            .clone()
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Zstd);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let others = Routes::new(health::server(Arc::clone(app)))
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .prepare();
        Ok(Self {
            plain,
            packing,
            others,
            max_message: app.max_body,
        })
    }

    /// Answers one call.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let answered = if !request.uri().path().starts_with(INFERENCE) {
            let answered = self.others.clone().call(request).await;
            answered.map(blame_the_client)
        } else if is_packed(request.headers()) {
            self.packing.clone().call(request).await
        } else {
            self.plain.clone().call(request).await
        };
        let mut response = match answered {
            Ok(response) => response,
            Err(never) => match never {},
        };
        explain_size(response.headers_mut(), self.max_message);
        response
    }
}

/// Whether a request is gRPC's: `application/grpc`, also with `+proto` and the like, not gRPC-Web.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE);
    let rest = kind.and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+' | b';', ..]))
}

fn is_packed(headers: &HeaderMap) -> bool {
    headers
        .get("grpc-encoding")
        .is_some_and(|encoding| encoding != "identity")
}

/// Health and reflection are read by tonic's own codec, which says INTERNAL of a message that is none. Nothing else
/// there is INTERNAL before its answer begins.
fn blame_the_client(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    if headers.get(Status::GRPC_STATUS) == Some(&HeaderValue::from(Code::Internal as i32))
        && let Some(status) = Status::from_header_map(headers)
    {
        let status = Status::invalid_argument(format!(
            "the message is not what this call takes: {}",
            status.message()
        ));
        // A message is percent-encoded: it always fits.
        let _ = status.add_header(headers);
    }
    response
}

/// tonic says OUT_OF_RANGE of a message that is too long and names no option; gRPC's own libraries say
/// RESOURCE_EXHAUSTED. Nothing else here is OUT_OF_RANGE.
fn explain_size(headers: &mut HeaderMap, limit: usize) {
    let out_of_range = HeaderValue::from(Code::OutOfRange as i32);
    if headers.get(Status::GRPC_STATUS) != Some(&out_of_range) {
        return;
    }
    let status = Status::resource_exhausted(format!(
        "the message is larger than {limit} bytes; the server's --max-body-bytes sets this limit"
    ));
    // Only a message that is no header can fail here, and this one is plain ASCII.
    let _ = status.add_header(headers);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::CONTENT_TYPE, kind.parse().unwrap());
            assert_eq!(is_grpc(&headers), expected, "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
