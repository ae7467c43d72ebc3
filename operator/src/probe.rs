//! Asks a pod what it serves: `GET /healthz/startup` of our own server.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use ortolan_core::observed::Report;
use ortolan_crds::names;
use tokio::{net::TcpStream, time};

/// A pod on a network that we do not reach must not hold up its service.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Far more than the server answers.
const MAX_BYTES: usize = 256 * 1024;

#[derive(serde::Deserialize)]
struct Startup {
    digest: String,
}

/// What the pod at this address says, or in a sentence why it is not known.
///
/// # Errors
/// When the pod is not reached within 2 s or answers something else.
pub async fn ask(address: &str) -> Result<Report, String> {
    let host = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    let host = format!("{host}:{}", names::CONTAINER_PORT);
    match time::timeout(TIMEOUT, get(&host)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "{host} does not answer within {} s",
            TIMEOUT.as_secs()
        )),
    }
}

async fn get(host: &str) -> Result<Report, String> {
    let say = |what: &str, error: &dyn std::fmt::Display| format!("{host}: {what}: {error}");
    let stream = TcpStream::connect(host)
        .await
        .map_err(|e| say("cannot connect", &e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| say("no HTTP", &e))?;
    let driver = tokio::spawn(connection);
    let request = Request::get("/healthz/startup")
        .header(header::HOST, host)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| say("bad request", &e))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|e| say("no answer", &e))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BYTES)
        .collect()
        .await
        .map_err(|e| say("no body", &e))?
        .to_bytes();
    driver.abort();
    if status != StatusCode::OK {
        return Err(format!("{host}: /healthz/startup answers {status}"));
    }
    let startup: Startup = serde_json::from_slice(&body).map_err(|e| say("unknown body", &e))?;
    Ok(Report {
        digest: startup.digest,
    })
}
