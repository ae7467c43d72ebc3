//! Reads a request's body within bounds: of bytes (413) and of time between two parts (408). The rest of a body that is
//! too long is [`ortolan_linger`]'s.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::BodyExt;

use super::{
    coding::{self, Coding},
    error::ApiError,
};

/// A client that sends nothing for so long has gone.
pub const STALL: Duration = Duration::from_secs(30);

/// The whole body of a request, unpacked if it is packed; neither is larger than `limit`.
pub async fn receive(request: Request<Body>, limit: usize) -> Result<Bytes, ApiError> {
    let coding = Coding::of_request(request.headers())?;
    let body = read(request.into_body(), limit).await?;
    coding::unpacked(coding, body, limit).await
}

/// The whole body.
async fn read(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    use http_body::Body as _;
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(too_large(Some(announced), limit));
    }
    let Some(first) = part(&mut body).await? else {
        return Ok(Bytes::new());
    };
    if first.len() as u64 >= announced && body.is_end_stream() && first.len() <= limit {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity((announced as usize).max(first.len()));
    let mut next = Some(first);
    while let Some(bytes) = next {
        if whole.len() + bytes.len() > limit {
            return Err(too_large(None, limit));
        }
        whole.extend_from_slice(&bytes);
        next = part(&mut body).await?;
    }
    Ok(whole.freeze())
}

async fn part(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    loop {
        let frame = tokio::time::timeout(STALL, body.frame())
            .await
            .map_err(|_| {
                ApiError::new(
                    StatusCode::REQUEST_TIMEOUT,
                    format!("nothing of the body came for {} seconds", STALL.as_secs()),
                )
            })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(ApiError::bad(format!("the body broke off: {error}"))),
            // Trailers carry nothing for us.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn too_large(announced: Option<u64>, limit: usize) -> ApiError {
    let size = announced.map_or_else(String::new, |bytes| format!(" of {bytes} bytes"));
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!(
            "the body{size} is larger than {limit} bytes; the server's --max-body-bytes sets this limit"
        ),
    )
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;

    fn chunks(parts: &[&'static str]) -> impl stream::Stream<Item = Result<Bytes, std::io::Error>> {
        let parts: Vec<_> = parts
            .iter()
            .map(|part| Ok(Bytes::from_static(part.as_bytes())))
            .collect();
        stream::iter(parts)
    }

    #[tokio::test]
    async fn a_body_in_parts_is_put_together_and_bounded() {
        let body = || Body::from_stream(chunks(&["abc", "", "def"]));
        assert_eq!(read(body(), 6).await, Ok(Bytes::from_static(b"abcdef")));
        assert_eq!(read(Body::empty(), 0).await, Ok(Bytes::new()));
        let error = read(body(), 5).await.unwrap_err();
        assert_eq!(error.code, StatusCode::PAYLOAD_TOO_LARGE);
        let error = read(Body::from("abcdef"), 5).await.unwrap_err();
        assert_eq!(error.code, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(error.message.contains("6 bytes"), "{}", error.message);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stalls_is_told_so() {
        let body = Body::from_stream(chunks(&["abc"]).chain(stream::pending()));
        assert_eq!(
            read(body, 100).await.unwrap_err().code,
            StatusCode::REQUEST_TIMEOUT
        );
    }
}
