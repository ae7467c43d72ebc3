//! Asks a pod what it serves: `GET /healthz/startup` of our own server.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use ortolan_core::observed::{About, Report};
use ortolan_crds::{ColdStart, ModelStatus, ProviderStatus, names};
use tokio::{net::TcpStream, time};

/// A pod on a network that we do not reach must not hold up its service.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Far more than the server answers.
const MAX_BYTES: usize = 256 * 1024;

/// Of a model's inputs and outputs the status tells so many: its size has a bound.
const MAX_TENSORS: usize = 32;

#[derive(serde::Deserialize)]
struct Startup {
    digest: String,
    provider: Option<ProviderStatus>,
    model: Option<ModelStatus>,
    #[serde(default)]
    phases: Vec<Phase>,
}

#[derive(serde::Deserialize)]
struct Phase {
    name: String,
    seconds: f64,
}

impl Startup {
    fn report(self) -> Report {
        let model = self.model.map(|mut model| {
            model.inputs.truncate(MAX_TENSORS);
            model.outputs.truncate(MAX_TENSORS);
            model
        });
        let took = |name: &str| {
            let phase = self.phases.iter().find(|phase| phase.name == name)?;
            Some(format!("{:.0}ms", phase.seconds * 1e3))
        };
        let cold_start = ColdStart {
            fetch: took("Fetch"),
            verify: took("Verify"),
            unpack: took("Unpack"),
            load: took("Load"),
            warm_up: took("WarmUp"),
        };
        Report {
            digest: self.digest,
            about: About {
                provider: self.provider,
                model,
                cold_start: Some(cold_start).filter(|phases| *phases != ColdStart::default()),
            },
        }
    }
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
    Ok(startup.report())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_becomes_a_report() {
        let text = r#"{"phase":"Ready","digest":"sha256:aa","provider":{"requested":"CUDA","active":"CPU"},
            "model":{"name":"m","version":"1","opset":17,
                     "inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],"outputs":[]},
            "sessions":2,"phases":[{"name":"Fetch","seconds":0.0124},{"name":"Load","seconds":1.5}]}"#;
        let report = serde_json::from_str::<Startup>(text)
            .expect("a startup")
            .report();
        assert_eq!(report.digest, "sha256:aa");
        let model = report.about.model.expect("a model");
        assert_eq!(model.inputs[0].shape, [-1, 4]);
        assert_eq!((model.opset, model.version.as_deref()), (17, Some("1")));
        let cold = report.about.cold_start.expect("phases");
        assert_eq!(cold.fetch.as_deref(), Some("12ms"));
        assert_eq!(cold.load.as_deref(), Some("1500ms"));
        assert_eq!(cold.unpack, None);
        let provider = report.about.provider.expect("a provider");
        assert_eq!(
            (provider.requested.as_str(), provider.active.as_str()),
            ("CUDA", "CPU")
        );
        let bare = serde_json::from_str::<Startup>(r#"{"digest":"sha256:aa"}"#).expect("a startup");
        assert_eq!(bare.report().about, About::default());
    }
}
