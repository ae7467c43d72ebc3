//! Bodies of a request that is followed: their bytes are counted, and the end of the answer is seen.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::trail::Trail;

/// Which body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// A body and the trail of its request.
#[derive(Debug)]
pub struct Counted<B> {
    body: B,
    trail: Arc<Trail>,
    way: Way,
}

impl<B> Counted<B> {
    /// The request's body.
    pub const fn request(body: B, trail: Arc<Trail>) -> Self {
        let way = Way::In;
        Self { body, trail, way }
    }

    /// The answer's body.
    pub const fn answer(body: B, trail: Arc<Trail>) -> Self {
        let way = Way::Out;
        Self { body, trail, way }
    }
}

/// gRPC's own code stands in the head or behind the body.
#[must_use]
pub fn grpc_code(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let body = Pin::new(&mut this.body);
        // Answers of a stream are made while its body is asked for them.
        let polled = match this.way {
            Way::In => body.poll_frame(cx),
            Way::Out => this.trail.follow_now(|| body.poll_frame(cx)),
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            match (this.way, frame.data_ref(), frame.trailers_ref()) {
                (Way::In, Some(data), _) => this.trail.read(data.len()),
                (Way::Out, Some(data), _) => this.trail.wrote(data.len()),
                (Way::Out, _, Some(trailers)) => {
                    if let Some(code) = grpc_code(trailers) {
                        this.trail.coded(code);
                    }
                }
                _ => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
