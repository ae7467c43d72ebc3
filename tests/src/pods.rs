//! What pods say of themselves to the operator, without pods: servers on addresses of loopback at the port that the
//! operator asks, which answer `/healthz/startup` as ours does. One for all tests of a process, on a thread of its own.

use std::sync::Once;

use axum::{Json, Router, routing::get};
use ortolan_crds::names;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{cluster::Fate, world::DIGEST};

/// Pods that take `x` of four numbers.
const FOUR: &str = "127.0.77.1";
/// Pods that take `x` of five numbers.
const FIVE: &str = "127.0.77.2";

fn startup(width: i64) -> Value {
    let tensor =
        |name: &str, width| json!({"name": name, "datatype": "FP32", "shape": [-1, width]});
    json!({
        "digest": DIGEST, "provider": {"requested": "CPU", "active": "CPU"},
        "model": {"name": "m", "version": "1", "opset": 17,
                  "inputs": [tensor("x", width)], "outputs": [tensor("y", 3)]},
    })
}

async fn serve(address: &'static str, width: i64) {
    let port = names::CONTAINER_PORT;
    let port = u16::try_from(port).expect("a port");
    let listener = TcpListener::bind((address, port)).await;
    let listener = listener.unwrap_or_else(|error| {
        panic!("the tests' pods answer at {address}:{port}, which has to be free: {error}")
    });
    let paths = Router::new().route("/healthz/startup", get(async move || Json(startup(width))));
    axum::serve(listener, paths).await.expect("it serves");
}

fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async { tokio::join!(serve(FOUR, 4), serve(FIVE, 5)) });
        });
    });
}

/// Ready pods that say what they serve.
#[must_use]
pub fn telling() -> Fate {
    start();
    Fate::ReadyAt(FOUR)
}

/// The same with another shape of their input: old requests would not be answered.
#[must_use]
pub fn telling_otherwise() -> Fate {
    start();
    Fate::ReadyAt(FIVE)
}
