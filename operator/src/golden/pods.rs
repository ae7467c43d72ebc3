//! Asks a pod one question of a golden set.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use ortolan_crds::names;

use super::{Trouble, innermost};

/// How we call ourselves.
pub(super) const AGENT: &str = concat!("ortolan-operator/", env!("CARGO_PKG_VERSION"));

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For one answer: as long as a request may take unless its service says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// The outputs of a large model as JSON.
const MAX_ANSWER: usize = 64 << 20;
/// A pod that is busy is asked again: after 0.2 s, then twice as long each time, 3 s in all.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// Between two lines; then the connection is of no more use.
const IDLE: Duration = Duration::from_secs(10);

/// What a pod is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) path: &'static str,
    pub(super) suffix: &'static str,
    pub(super) kind: Option<&'static str>,
    pub(super) body: Bytes,
}

/// Connections to pods.
#[derive(Clone, Debug)]
pub(super) struct Pods(Client<HttpConnector, Full<Bytes>>);

/// `10.0.0.7` → `10.0.0.7:8080`; an address with a port is taken as it is.
pub(super) fn authority(address: &str) -> Result<SocketAddr, String> {
    let with_port = address.parse::<SocketAddr>();
    let ip = || address.parse::<IpAddr>();
    with_port
        .or_else(|_| ip().map(|ip| (ip, names::CONTAINER_PORT as u16).into()))
        .map_err(|_| format!("{address:?} is no address of a pod"))
}

impl Pods {
    pub(super) fn new() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_idle_timeout(IDLE).pool_timer(TokioTimer::new());
        Self(client.build(tcp))
    }

    /// The code and body of an answer.
    pub(super) async fn ask(
        &self,
        pod: SocketAddr,
        model: &str,
        question: &Question,
    ) -> Result<(u16, Bytes), Trouble> {
        let mut tries = 0;
        loop {
            let asked = self.once(pod, model, question);
            let (code, body) = match tokio::time::timeout(PATIENCE, asked).await {
                Ok(answered) => answered?,
                Err(_) => {
                    return Err(Trouble::Passing(format!(
                        "the pod {pod} did not answer within {} s",
                        PATIENCE.as_secs()
                    )));
                }
            };
            // It did not begin, or is not ready any more.
            if code != StatusCode::SERVICE_UNAVAILABLE {
                return Ok((code.as_u16(), body));
            }
            tries += 1;
            if tries == TRIES {
                return Err(Trouble::Passing(format!(
                    "the pod {pod} answered {TRIES} times that it is busy"
                )));
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(tries - 1)).await;
        }
    }

    async fn once(
        &self,
        pod: SocketAddr,
        model: &str,
        question: &Question,
    ) -> Result<(StatusCode, Bytes), Trouble> {
        let Question {
            path, suffix, kind, ..
        } = question;
        let mut request = Request::post(format!("http://{pod}{path}{model}{suffix}"))
            .header(header::USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let request = request
            .body(Full::new(question.body.clone()))
            .map_err(|error| {
                Trouble::Final(format!("the model {model:?} cannot be asked: {error}"))
            })?;
        let unreached =
            |what: &str, error: &dyn std::fmt::Display| format!("the pod {pod} {what}: {error}");
        let answer = self.0.request(request).await;
        let answer = answer
            .map_err(|error| Trouble::Passing(unreached("is not reached", &innermost(&error))))?;
        let code = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        match body {
            Ok(body) => Ok((code, body.to_bytes())),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(Trouble::Final(format!(
                    "an answer has more than {MAX_ANSWER} bytes: ask for fewer rows or outputs a line"
                )))
            }
            Err(error) => Err(Trouble::Passing(unreached("broke off", &error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_address_is_an_ip_with_or_without_a_port() {
        for (address, expected) in [
            ("10.0.0.7", Ok("10.0.0.7:8080")),
            ("fd00::7", Ok("[fd00::7]:8080")),
            ("127.0.0.1:18080", Ok("127.0.0.1:18080")),
            ("[::1]:1", Ok("[::1]:1")),
            ("pod", Err(())),
            ("", Err(())),
        ] {
            let got = authority(address);
            match expected {
                Ok(expected) => assert_eq!(got.map(|a| a.to_string()), Ok(expected.to_owned())),
                Err(()) => assert!(got.is_err(), "{address}"),
            }
        }
    }
}
