//! Load on a Service, from a pod in the cluster, and single requests the same way.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};
use ortolan_e2e_load::{Answer, Call, Called, Order, Started, Tally, Way};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Failure, Result, check, install::LOAD};

/// The answer to one request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none, or the status is not 200.
    pub fn json(&self) -> Result<Value> {
        check(self.status == 200, || {
            format!("200 was expected: {} {}", self.status, self.body)
        })?;
        Ok(serde_json::from_str(&self.body)?)
    }
}

/// The pod that sends.
struct Sender {
    client: Client,
    base: String,
}

impl Sender {
    async fn find(client: &Client) -> Result<Self> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), LOAD);
        let found = pods.list(&ListParams::default().labels("app=load")).await?;
        let running = found
            .items
            .into_iter()
            .find(|pod| pod.metadata.deletion_timestamp.is_none());
        let name = running.and_then(|pod| pod.metadata.name);
        let name = name.ok_or_else(|| Failure::Wrong("the load generator has no pod".into()))?;
        Ok(Self {
            client: client.clone(),
            base: format!("/api/v1/namespaces/{LOAD}/pods/{name}:8080/proxy"),
        })
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<T> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let text = self.client.request_text(request.body(body)?).await?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

/// One request from inside the cluster.
pub(crate) async fn ask(
    client: &Client,
    method: &str,
    url: &str,
    way: &Way,
    content_type: &str,
    body: Vec<u8>,
) -> Result<Reply> {
    let way = serde_json::to_string(way)?;
    let headers = [
        ("x-way", way.as_str()),
        ("x-url", url),
        ("x-method", method),
        ("x-content-type", content_type),
    ];
    let sender = Sender::find(client).await?;
    let answer: Answer = sender.call("POST", "/ask", &headers, body).await?;
    Ok(Reply {
        status: answer.status,
        body: answer.body,
    })
}

/// One gRPC call from inside the cluster; its messages in base64.
pub(crate) async fn call(client: &Client, call: &Call) -> Result<Called> {
    let headers = [("content-type", "application/json")];
    let body = serde_json::to_vec(call)?;
    let sender = Sender::find(client).await?;
    sender.call("POST", "/call", &headers, body).await
}

/// A load that runs until it is stopped.
pub struct Load {
    sender: Sender,
    path: String,
    /// Seconds since 1970 when it began; the times of a [`Tally`] count from here.
    pub began: f64,
}

impl Load {
    /// Three clients on the tiny models: one connects anew for each request, two keep their connections.
    /// Counted is the first number of the answer: 1 of `identity`, 2 of `identity-2`.
    #[must_use]
    pub fn order(url: String) -> Order {
        Order {
            url,
            way: Way::default(),
            message: None,
            body: Some(json!({"inputs": [
                {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
            ]})),
            bodies: Vec::new(),
            pointer: "/outputs/0/data/0".into(),
            fresh: 1,
            kept: 2,
            pause_ms: 30,
            timeout_ms: 10_000,
        }
    }

    /// As many requests as two clients make with a pause, on a tiny model: the first of four numbers is 1 to 23 in
    /// turn, so that one in 23 is too large for `picky` (a prime: the exact split would send every twentieth to the same
    /// revision each time). Counted is the last number of the answer, which tells the
    /// models apart: 4 more than what the model adds.
    pub(crate) fn varied(url: String) -> Order {
        let body = |first: i32| {
            json!({"inputs": [
                {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [first, 2, 3, 4]}
            ]})
        };
        Order {
            body: None,
            bodies: (1..=23).map(body).collect(),
            pointer: "/outputs/0/data/3".into(),
            fresh: 0,
            kept: 2,
            ..Self::order(url)
        }
    }

    /// Begins.
    ///
    /// # Errors
    /// When the generator cannot be told.
    pub async fn start(client: &Client, order: &Order) -> Result<Self> {
        let sender = Sender::find(client).await?;
        let headers = [("content-type", "application/json")];
        let body = serde_json::to_vec(order)?;
        let began = now();
        let Started { id } = sender.call("POST", "/runs", &headers, body).await?;
        Ok(Self {
            sender,
            path: format!("/runs/{id}"),
            began,
        })
    }

    /// What was seen so far.
    ///
    /// # Errors
    /// When the generator cannot be asked.
    pub async fn tally(&self) -> Result<Tally> {
        self.sender.call("GET", &self.path, &[], Vec::new()).await
    }

    /// No more requests; what was seen.
    ///
    /// # Errors
    /// When the generator cannot be asked.
    pub async fn stop(self) -> Result<Tally> {
        self.sender
            .call("DELETE", &self.path, &[], Vec::new())
            .await
    }

    /// Stops, and holds that no request failed and that there were enough of them to mean something.
    ///
    /// # Errors
    /// With the failures.
    pub async fn stop_without_a_failure(self) -> Result<Tally> {
        let tally = self.stop().await?;
        check(tally.failed == 0, || {
            let first = &tally.failures[..tally.failures.len().min(10)];
            format!(
                "{} of {} requests failed within {} ms: {first:#?}; answers: {:?}",
                tally.failed, tally.sent, tally.elapsed_ms, tally.answers
            )
        })?;
        check(tally.sent >= 50, || format!("hardly any load: {tally:?}"))?;
        Ok(tally)
    }
}
