//! The server in this process: its dispatch, with small models of every kind behind it.

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use ortolan_server::{
    app::App,
    grpc::Grpc,
    http::{
        dispatch::{Dispatch, Speaks},
        router,
    },
    model::{Identity, Model, Settings},
    options::Sessions,
    runtime,
    startup::Startup,
};
use prost::Message;
use tokio::runtime::Runtime;

#[allow(dead_code, missing_docs)] // the server's tests use the rest
#[path = "../../../server/tests/support/onnx.rs"]
pub mod onnx;

/// No request may take longer: the models take microseconds and the largest body is small.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The largest body that is read.
pub const MAX_BODY: usize = 1 << 20;

/// A tokenizer of four words.
pub const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
"normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
"model":{"type":"WordLevel","vocab":{"[UNK]":0,"a":1,"quick":2,"fox":3},"unk_token":"[UNK]"}}"#;

const IMAGE: &str = "pipeline:
  input: {kind: image, width: 2, height: 2, resize: crop, mean: [0], std: [255]}
  output: {kind: classification, labels: labels.txt, softmax: true, topK: 2}
";
const BYTES: &str = "pipeline:
  input: {kind: bytes, head: 8, middle: 4, tail: 4, strip: true}
  output: {kind: raw}
";
const ROWS: &str = "pipeline:
  input: {kind: rows, columns: [a, {name: b, missing: -1}, c]}
  output: {kind: raw}
";
const TEXT: &str = "pipeline:
  input: {kind: text, maxTokens: 16, maxRunTokens: 64}
  output: {kind: embedding}
";

/// What a request got.
pub struct Answer {
    /// Its code.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
    /// What stands behind the body.
    pub trailers: HeaderMap,
}

/// The server.
pub struct World {
    runtime: Runtime,
    dispatch: Dispatch,
}

/// Starts the server once.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::start)
}

impl World {
    /// Answers a request.
    ///
    /// # Panics
    /// When no answer comes in time.
    pub fn ask(&self, request: Request<Body>) -> Answer {
        let work = async {
            let response = match self.dispatch.answer(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let (parts, body) = response.into_parts();
            let whole = body.collect().await.expect("an answer's body is whole");
            let trailers = whole.trailers().cloned().unwrap_or_default();
            Answer {
                status: parts.status,
                headers: parts.headers,
                body: whole.to_bytes(),
                trailers,
            }
        };
        let answered = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, work).await });
        answered.expect("an answer in time")
    }

    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let app = Arc::new(App::new(MAX_BODY));
        open_all(&runtime, &app);
        app.catalog.open();
        let grpc = Grpc::new(&app).expect("gRPC's services");
        let router = router(Arc::clone(&app));
        Self {
            dispatch: Dispatch::new(router, grpc, app, Speaks::Both),
            runtime,
        }
    }
}

/// Every kind of model that a request can come to: by datatype, by free dimensions, by pipeline.
fn models() -> Vec<(&'static str, onnx::Model, &'static str)> {
    let embedded = onnx::model(
        17,
        onnx::Graph {
            nodes: vec![
                onnx::Node {
                    attributes: vec![onnx::attribute_int("to", onnx::FLOAT.into())],
                    ..onnx::node("Cast", &["input_ids"], &["floats"])
                },
                onnx::node("Unsqueeze", &["floats", "axes"], &["y"]),
            ],
            initializers: vec![onnx::int_initializer("axes", &[1], &[2])],
            inputs: vec![onnx::tensor("input_ids", onnx::INT64, &[-1, -1])],
            outputs: vec![onnx::tensor("y", onnx::FLOAT, &[-1, -1, 1])],
            ..onnx::Graph::default()
        },
    );
    let mut models = vec![
        ("sum", onnx::sum_and_difference(), ""),
        ("offset", onnx::optional_offset(), ""),
        ("gather", onnx::looked_up(), ""),
        ("odd", onnx::no_numbers(), ""),
        ("text", embedded, TEXT),
        ("image", onnx::colours(), IMAGE),
        ("bytes", onnx::identity(6, &[-1, 16]), BYTES),
        ("rows", onnx::identity(onnx::FLOAT, &[-1, 3]), ROWS),
        ("scalar", onnx::identity(onnx::INT64, &[]), ""),
        ("free", onnx::identity(onnx::FLOAT, &[-1, -1, -1]), ""),
    ];
    let names = onnx::DATATYPES.map(|(name, element)| (name, onnx::identity(element, &[-1, 2])));
    models.extend(names.map(|(name, model)| (name, model, "")));
    models
}

/// The names of all models.
pub fn names() -> &'static [String] {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        models()
            .iter()
            .map(|(name, _, _)| name.to_lowercase())
            .collect()
    })
}

fn open_all(runtime: &Runtime, app: &App) {
    let (environment, _) = runtime::start(None).expect("ONNX Runtime's library");
    let settings = Settings {
        sessions: Sessions::Exactly(std::num::NonZeroUsize::MIN),
        ..Settings::default()
    };
    for (name, model, yaml) in models() {
        let dir = scratch();
        write(dir.path(), "model.onnx", &model.encode_to_vec());
        write(dir.path(), "labels.txt", b"red\ngreen\nblue\n");
        write(dir.path(), "tokenizer.json", TOKENIZER.as_bytes());
        if !yaml.is_empty() {
            write(dir.path(), "model.yaml", yaml.as_bytes());
        }
        let uri = dir.path().join("model.onnx").display().to_string();
        let uri = uri.parse().expect("a path is a URI");
        let request = ortolan_model::Request::new(uri, dir.path().join("cache"));
        let startup = Startup::default();
        let package = runtime.block_on(ortolan_model::obtain(&request, &startup));
        let identity = Identity {
            name: name.to_lowercase(),
            version: "1".to_owned(),
        };
        let meter = app.metrics.meter(&identity.name, "1");
        let package = package.expect("a model that is one");
        let model = Model::open(identity, &settings, &environment, package, &startup, meter);
        app.catalog
            .insert(Arc::new(model.expect("a model that loads")));
    }
}

/// A folder in memory, where the machine has such a place: nothing here should wear a disk out.
///
/// # Panics
/// When there is no room for it.
#[must_use]
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a scratch folder")
}

/// Writes a file of a target's input.
///
/// # Panics
/// When that fails.
pub fn write(folder: &Path, name: &str, content: &[u8]) {
    fs::write(folder.join(name), content).expect("a file in the scratch folder");
}
