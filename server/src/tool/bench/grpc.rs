//! gRPC as a load generator needs it: a unary call whose message is ready as bytes, on an HTTP/2 connection that is
//! kept; the answer is counted and dropped.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{http::Broken, request::Header};

/// What a stream may send before it must wait, as most gRPC clients set it or larger: an answer of some megabytes comes
/// in one go.
const WINDOW: u32 = 8 << 20;

/// A connection that is opened when it is needed, and kept. Clones share it.
#[derive(Clone, Debug)]
pub struct Connection {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// How a call ended.
#[derive(Debug)]
pub struct Called {
    /// gRPC's code; 0 is success.
    pub code: i32,
    /// What goes with it.
    pub words: String,
    /// The answer's message, with the five bytes before it.
    pub message: Bytes,
}

/// A message as it goes on the wire: not compressed, its length, its bytes.
#[must_use]
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes
}

/// The call of a method, all but its message.
pub fn head(host: &str, path: &str, more: &[Header]) -> Result<http::request::Parts, http::Error> {
    let uri = Uri::builder()
        .scheme("http")
        .authority(host)
        .path_and_query(path)
        .build()?;
    let mut request = Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header(
            "user-agent",
            concat!("ortolan-bench/", env!("CARGO_PKG_VERSION")),
        );
    for header in more {
        request = request.header(&header.name, &header.value);
    }
    Ok(request.body(())?.into_parts().0)
}

impl Connection {
    /// Not connected yet.
    #[must_use]
    pub const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            sender: None,
        }
    }

    /// Connects unless it is connected.
    pub async fn open(&mut self) -> Result<(), Broken> {
        if self
            .sender
            .as_ref()
            .is_some_and(|sender| !sender.is_closed())
        {
            return Ok(());
        }
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|_| Broken::Refused)?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Broken::Malformed)?;
        // Its end shows to whoever waits for an answer on it.
        tokio::spawn(connection);
        self.sender = Some(sender);
        Ok(())
    }

    /// Gives the connection up.
    pub fn close(&mut self) {
        self.sender = None;
    }

    /// Sends one message, framed already, and waits for the answer.
    pub async fn call(
        &mut self,
        head: &http::request::Parts,
        message: Bytes,
    ) -> Result<Called, Broken> {
        self.open().await?;
        let Some(sender) = &mut self.sender else {
            return Err(Broken::Closed);
        };
        let request = Request::from_parts(head.clone(), Full::new(message));
        let response = sender
            .send_request(request)
            .await
            .map_err(|_| Broken::Closed)?;
        let (head, body) = response.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(Broken::Malformed);
        }
        let body = body.collect().await.map_err(|_| Broken::Closed)?;
        // An answer without a message has its status in its head.
        let status = body
            .trailers()
            .and_then(status)
            .or_else(|| status(&head.headers));
        let (code, words) = status.ok_or(Broken::Malformed)?;
        Ok(Called {
            code,
            words,
            message: body.to_bytes(),
        })
    }
}

fn status(headers: &HeaderMap) -> Option<(i32, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let words = headers.get("grpc-message").map(|words| words.as_bytes());
    let words = percent_encoding::percent_decode(words.unwrap_or_default()).decode_utf8_lossy();
    Some((code, words.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_framed_with_its_length() {
        assert_eq!(framed(b"abc"), [0, 0, 0, 0, 3, b'a', b'b', b'c']);
        assert_eq!(framed(&[7; 300])[..5], [0, 0, 0, 1, 44]);
    }

    #[test]
    fn a_status_has_its_code_and_its_words() {
        let mut headers = HeaderMap::new();
        assert_eq!(status(&headers), None);
        headers.insert("grpc-status", "5".parse().unwrap());
        assert_eq!(status(&headers), Some((5, String::new())));
        headers.insert("grpc-message", "no%20model%20%22x%22".parse().unwrap());
        assert_eq!(status(&headers), Some((5, "no model \"x\"".to_owned())));
        headers.insert("grpc-status", "ok".parse().unwrap());
        assert_eq!(status(&headers), None);
    }

    #[test]
    fn a_call_names_its_method_and_the_users_headers() {
        let more = ["authorization: Bearer x".parse().unwrap()];
        let head = head("a.b:80", "/inference.S/M", &more).unwrap();
        assert_eq!(head.uri.to_string(), "http://a.b:80/inference.S/M");
        assert_eq!(head.headers["authorization"], "Bearer x");
        assert_eq!(head.headers["te"], "trailers");
    }
}
