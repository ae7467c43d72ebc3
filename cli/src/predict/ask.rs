//! One request over one connection.

use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::Answer;

/// What is asked.
pub type Request = http::Request<Full<Bytes>>;

/// Asks, and takes the whole answer.
///
/// # Errors
/// Why the connection broke.
pub async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request,
) -> Result<Answer, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let driven = tokio::spawn(connection);
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| e.to_string())?;
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|e| format!("the answer broke off: {e}"))?;
        Ok(Answer {
            code: head.status.as_u16(),
            body: body.to_bytes().to_vec(),
        })
    };
    let answer = answer.await;
    driven.abort();
    answer
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::{body::Incoming, server::conn::http1 as server, service::service_fn};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::predict::request::{Input, build};

    #[tokio::test]
    async fn a_request_arrives_whole_and_its_answer_comes_back_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let echo = service_fn(|request: http::Request<Incoming>| async move {
                let told = format!(
                    "{} {} {}",
                    request.method(),
                    request.uri().path(),
                    request.headers()["host"].to_str().expect("a text")
                );
                let body = request
                    .into_body()
                    .collect()
                    .await
                    .expect("a body")
                    .to_bytes();
                let text = format!("{told} {}", body.len());
                Ok::<_, Infallible>(
                    http::Response::builder()
                        .status(422)
                        .body(Full::new(Bytes::from(text)))
                        .expect("an answer"),
                )
            });
            let _ = server::Builder::new()
                .serve_connection(TokioIo::new(stream), echo)
                .await;
        });
        let stream = TcpStream::connect(address).await.expect("a connection");
        let input = Input::Raw {
            body: vec![7; 300_000],
            content_type: None,
        };
        let request = build("cats", "cats.demo.svc", input).expect("a request");
        let answer = ask(stream, request).await.expect("an answer");
        assert_eq!(answer.code, 422);
        assert_eq!(
            String::from_utf8_lossy(&answer.body),
            "POST /predict/cats cats.demo.svc 300000"
        );
    }

    #[tokio::test]
    async fn a_connection_that_breaks_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { drop(listener.accept().await) });
        let stream = TcpStream::connect(address).await.expect("a connection");
        let request = build("m", "h", Input::V2(b"{}".to_vec())).expect("a request");
        let error = ask(stream, request).await.expect_err("it broke");
        assert!(!error.is_empty());
    }
}
