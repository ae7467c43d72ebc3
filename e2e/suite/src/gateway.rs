//! The Gateway of `e2e/gateway`, and what a client behind a host name of it sees.

use std::time::{Duration, Instant};

use kube::Client;
use ortolan_e2e_load::Way;
use prost::Message;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    Failure, Load, Reply, Result,
    grpc::{self, Ended},
    kubectl_in, load,
};

/// Where the Gateway is; tests have no routes there.
const GATEWAYS: &str = "ortolan-gateways";
const NAME: &str = "gateway";

/// A Gateway that takes routes from every namespace at its listener `http`, and only from its own at `closed`.
pub struct Gateway {
    client: Client,
    address: String,
}

impl Gateway {
    /// The run's Gateway.
    ///
    /// # Errors
    /// When it has no address: the run is none with `--gateway`.
    pub async fn find(client: &Client) -> Result<Self> {
        let address = [
            "get",
            "gateway",
            NAME,
            "-o",
            "jsonpath={.status.addresses[0].value}",
        ];
        let address = kubectl_in(GATEWAYS, &address).await?;
        if address.is_empty() {
            return crate::fail("the tests' Gateway has no address: run e2e/run --gateway");
        }
        Ok(Self {
            client: client.clone(),
            address,
        })
    }

    /// A `parentRef` to a listener of it, from any namespace.
    #[must_use]
    pub fn listener(&self, name: &str) -> Value {
        json!({"name": NAME, "namespace": GATEWAYS, "sectionName": name})
    }

    /// Clients of a host name behind it, at the listener `http`.
    #[must_use]
    pub fn host(&self, name: &str) -> Host {
        self.past(&format!("{}:80", self.address), name)
    }

    /// Clients of a host name that go to another address, `host:port`.
    #[must_use]
    pub fn past(&self, address: &str, name: &str) -> Host {
        Host {
            client: self.client.clone(),
            name: name.into(),
            way: Way {
                via: Some(address.into()),
                ..Way::default()
            },
        }
    }
}

/// A host name behind the Gateway.
pub struct Host {
    client: Client,
    /// The name.
    pub name: String,
    way: Way,
}

impl Host {
    /// The same, with a header in each request.
    #[must_use]
    pub fn with(mut self, header: &str, value: &str) -> Self {
        self.way.headers.insert(header.into(), value.into());
        self
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.name)
    }

    /// GET.
    ///
    /// # Errors
    /// When there is no answer; an answer of any status is one.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        let url = self.url(path);
        load::ask(&self.client, "GET", &url, &self.way, "", Vec::new()).await
    }

    /// What the tiny model under this path makes of `[1, 2, 3, 4]`, as it is answered.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn infer(&self, prefix: &str, model: &str) -> Result<Reply> {
        let url = self.url(&format!("{prefix}/v2/models/{model}/infer"));
        let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]});
        let body = serde_json::to_vec(&body)?;
        load::ask(
            &self.client,
            "POST",
            &url,
            &self.way,
            "application/json",
            body,
        )
        .await
    }

    /// One gRPC call.
    ///
    /// # Errors
    /// When there is no answer; a status of any kind is one.
    pub async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        messages: &[Q],
    ) -> Result<Ended<A>> {
        let url = self.url(&format!("/{method}"));
        grpc::call(&self.client, url, self.way.clone(), messages).await
    }

    /// Load on a tiny model under this path.
    ///
    /// # Errors
    /// When the generator cannot be told.
    pub async fn load(&self, prefix: &str, model: &str) -> Result<Load> {
        let url = self.url(&format!("{prefix}/v2/models/{model}/infer"));
        let mut order = Load::order(url);
        order.way = self.way.clone();
        Load::start(&self.client, &order).await
    }

    /// Load by gRPC on a tiny model.
    ///
    /// # Errors
    /// When the generator cannot be told.
    pub async fn grpc_load(&self, model: &str) -> Result<Load> {
        let mut order = grpc::order(model, self.url(grpc::INFER));
        order.way = self.way.clone();
        Load::start(&self.client, &order).await
    }

    /// Waits until a GET of the path is answered with this status: the gateway's data plane follows its status.
    ///
    /// # Errors
    /// When it is not within a minute.
    pub async fn until_status(&self, path: &str, status: u16) -> Result<Reply> {
        let start = Instant::now();
        loop {
            let last = match self.get(path).await {
                Ok(reply) if reply.status == status => return Ok(reply),
                Ok(reply) => format!("{reply:?}"),
                Err(error) => error.to_string(),
            };
            if start.elapsed().as_secs() >= 60 {
                return Err(Failure::Late {
                    what: format!("{} answers {status}", self.url(path)),
                    seconds: 60,
                    last,
                });
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}
