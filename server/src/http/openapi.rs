//! `GET /openapi.json`: every REST path with its bodies and codes, as OpenAPI 3.1.
//!
//! The document is true of the running server: the names of the models that it has are the values that a path's
//! `{model}` may take. Tests hold it against the router, path by path.

use axum::{extract::State, response::Response};
use serde_json::{Map, Value, json};

use super::{Shared, json as answer};
use crate::{app::App, dtype::DataType, model::Model, tensor::element_count};

/// With more models than this their names are left out: the document would grow with them.
const NAMED: usize = 100;
/// More elements than an example should have.
const SHOWN: usize = 1024;

/// `GET /openapi.json`
pub(super) async fn document(State(app): Shared) -> Response {
    answer(describe(&app).to_string())
}

fn describe(app: &App) -> Value {
    let models = app.catalog.models();
    let mut names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    let mut versions: Vec<&str> = models.iter().map(|model| model.version.as_str()).collect();
    names.dedup();
    versions.sort_unstable();
    versions.dedup();
    let mut paths = Map::new();
    for (path, mut operations) in operations() {
        // An example is for one model: with several there is none that fits them all.
        if let ([model], true) = (&models[..], path.ends_with("/infer"))
            && let Some(example) = example(model)
        {
            let body = &mut operations["post"]["requestBody"]["content"]["application/json"];
            body["example"] = example;
        }
        paths.insert(path.to_owned(), operations);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ortolan",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "ONNX models over the Open Inference Protocol V2, V1 predict and plain bodies",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "parameters": {
                "model": in_path("model", "The model's name.", &names),
                "version": in_path("version", "The model's version.", &versions),
                "timeout": {
                    "name": "X-Request-Timeout", "in": "header",
                    "description": "How long the request may take: 250ms, 5s, 1m; a bare number is seconds.",
                    "schema": { "type": "string", "pattern": r"^[0-9]{1,6}(\.[0-9]{1,6})?(ms|s|m|h)?$" },
                },
                "id": {
                    "name": "X-Request-Id", "in": "header",
                    "description": "Comes back in the answer; one that is no id is replaced.",
                    "schema": { "type": "string", "pattern": "^[!-~]{1,128}$" },
                },
                "jsonLength": {
                    "name": "Inference-Header-Content-Length", "in": "header",
                    "description": "How many bytes of the body are JSON; the inputs' bytes follow. 0: the body \
                                    is the only input.",
                    "schema": { "type": "integer", "minimum": 0 },
                },
            },
            "schemas": schemas(),
        },
    })
}

/// A request that this model answers, if its tensors are short enough to be shown.
fn example(model: &Model) -> Option<Value> {
    let required = model.signature.inputs.iter().filter(|spec| !spec.optional);
    let inputs: Option<Vec<Value>> = required
        .map(|spec| {
            let shape: Vec<i64> = spec
                .shape
                .iter()
                .map(|dim| if *dim < 0 { 1 } else { *dim })
                .collect();
            let count = element_count(&shape).filter(|count| *count <= SHOWN)?;
            let element = match spec.datatype {
                DataType::Bool => json!(false),
                DataType::Bytes => json!(""),
                _ => json!(0),
            };
            Some(json!({
                "name": spec.name, "datatype": spec.datatype, "shape": shape,
                "data": vec![element; count],
            }))
        })
        .collect();
    Some(json!({ "inputs": inputs? }))
}

fn in_path(name: &str, description: &str, values: &[&str]) -> Value {
    let mut schema = json!({ "type": "string", "minLength": 1 });
    if (1..=NAMED).contains(&values.len()) {
        schema["enum"] = json!(values);
    }
    json!({
        "name": name, "in": "path", "required": true,
        "description": description, "schema": schema,
    })
}

/// Each path with its operations.
fn operations() -> Vec<(&'static str, Value)> {
    let about_model = |summary: &str, schema: &str| get(summary, schema, &[404, 503], &["model"]);
    let about_version =
        |summary: &str, schema: &str| get(summary, schema, &[404, 503], &["model", "version"]);
    let infer = |parameters: &[&str]| {
        let codes = [400, 404, 408, 413, 415, 500, 503, 504];
        let headers = ["jsonLength", "timeout"];
        let parameters = [parameters, &headers].concat();
        let summary = "Runs the model on tensors.";
        let body = json!({
            "application/json": { "schema": reference("InferRequest") },
            "application/octet-stream": {},
        });
        let ok = json!({
            "application/json": { "schema": reference("InferResponse") },
            "application/octet-stream": {},
        });
        post(summary, &body, &ok, &codes, &parameters)
    };
    let statistics = "Counts and times since the model was loaded.";
    vec![
        (
            "/",
            text("One page: what this is and what it answers.", "text/plain"),
        ),
        (
            "/metrics",
            text("OpenMetrics.", "application/openmetrics-text"),
        ),
        ("/openapi.json", get("This document.", "Object", &[], &[])),
        ("/healthz/live", text("The process runs.", "text/plain")),
        ("/healthz/ready", health("Requests are taken.")),
        (
            "/healthz/startup",
            either(
                "What was loaded, how long each phase took.",
                "Object",
                503,
                "Object",
            ),
        ),
        (
            "/v1/models/{model}",
            get("Whether a model is ready.", "Ready", &[404], &["model"]),
        ),
        ("/v1/models/{model}:predict", predict_v1()),
        ("/v1/embeddings", embeddings()),
        ("/predict/{model}", predict()),
        ("/v2", get("The server.", "Server", &[], &[])),
        ("/v2/", get("The server.", "Server", &[], &[])),
        (
            "/v2/health/live",
            get("The process runs.", "Live", &[], &[]),
        ),
        (
            "/v2/health/ready",
            get("Requests are taken.", "ServerReady", &[503], &[]),
        ),
        ("/v2/models/stats", get(statistics, "Statistics", &[], &[])),
        (
            "/v2/models/{model}",
            about_model("A model's inputs and outputs.", "Model"),
        ),
        (
            "/v2/models/{model}/versions/{version}",
            about_version("A version's inputs and outputs.", "Model"),
        ),
        (
            "/v2/models/{model}/ready",
            about_model("Whether a model is ready.", "Ready"),
        ),
        (
            "/v2/models/{model}/versions/{version}/ready",
            about_version("Whether a version is ready.", "Ready"),
        ),
        (
            "/v2/models/{model}/config",
            about_model("A model's configuration.", "Config"),
        ),
        (
            "/v2/models/{model}/versions/{version}/config",
            about_version("A version's configuration.", "Config"),
        ),
        (
            "/v2/models/{model}/stats",
            about_model(statistics, "Statistics"),
        ),
        (
            "/v2/models/{model}/versions/{version}/stats",
            about_version(statistics, "Statistics"),
        ),
        ("/v2/models/{model}/infer", infer(&["model"])),
        (
            "/v2/models/{model}/versions/{version}/infer",
            infer(&["model", "version"]),
        ),
        ("/v2/repository/index", index()),
        (
            "/v2/repository/models/{model}/load",
            change("Loads a model of the repository, or loads it again if its files changed."),
        ),
        (
            "/v2/repository/models/{model}/unload",
            change("Unloads a model; requests that it has are answered."),
        ),
    ]
}

fn predict_v1() -> Value {
    let body = json!({ "application/json": { "schema": reference("PredictRequest") } });
    let ok = json!({ "application/json": { "schema": reference("PredictResponse") } });
    let codes = [400, 404, 408, 413, 415, 500, 503, 504];
    post(
        "Runs the model on rows, V1.",
        &body,
        &ok,
        &codes,
        &["model"],
    )
}

fn embeddings() -> Value {
    let body = json!({ "application/json": { "schema": reference("EmbeddingsRequest") } });
    let ok = json!({ "application/json": { "schema": reference("EmbeddingsResponse") } });
    let codes = [400, 404, 408, 413, 415, 422, 500, 503, 504];
    post(
        "Vectors of texts, in the shape of OpenAI's API.",
        &body,
        &ok,
        &codes,
        &[],
    )
}

fn predict() -> Value {
    let body = json!({
        "image/jpeg": {}, "image/png": {}, "image/webp": {}, "text/plain": {}, "text/csv": {},
        "application/octet-stream": {}, "application/json": {},
    });
    let ok = json!({ "application/json": { "schema": reference("Object") } });
    let codes = [400, 404, 408, 413, 415, 422, 500, 503, 504];
    let summary = "Runs the model's pipeline on a body as it is.";
    post(summary, &body, &ok, &codes, &["model"])
}

fn index() -> Value {
    let body = json!({ "application/json": { "schema": reference("IndexRequest") } });
    let ok = json!({ "application/json": { "schema": reference("Index") } });
    let summary = "Every version of every model and its state.";
    let mut described = post(summary, &body, &ok, &[400, 408, 413, 415], &[]);
    described["post"]["requestBody"]["required"] = json!(false);
    described
}

/// A load or an unload; the body may be empty, and the answer is.
fn change(summary: &str) -> Value {
    let object = json!({ "type": "object" });
    let parameters = json!({ "type": "object", "properties": { "parameters": object } });
    let body = json!({ "application/json": { "schema": parameters } });
    let codes = [400, 403, 404, 408, 409, 413, 415, 500, 503];
    let mut described = post(summary, &body, &json!({}), &codes, &["model"]);
    described["post"]["requestBody"]["required"] = json!(false);
    described
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn operation(summary: &str, ok: &Value, codes: &[u16], parameters: &[&str]) -> Value {
    let mut responses = Map::new();
    let headers = json!({ "X-Request-Id": { "schema": { "type": "string" } } });
    responses.insert(
        "200".to_owned(),
        json!({ "description": "OK", "content": ok, "headers": headers }),
    );
    for code in codes {
        let status = http::StatusCode::from_u16(*code).unwrap_or_default();
        let error = json!({
            "description": status.canonical_reason().unwrap_or("Error"),
            "content": { "application/json": { "schema": reference("Error") } },
            "headers": headers,
        });
        responses.insert(code.to_string(), error);
    }
    let parameters: Vec<Value> = parameters
        .iter()
        .chain(&["id"])
        .map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }))
        .collect();
    json!({ "summary": summary, "parameters": parameters, "responses": responses })
}

fn get(summary: &str, schema: &str, codes: &[u16], parameters: &[&str]) -> Value {
    let ok = json!({ "application/json": { "schema": reference(schema) } });
    json!({ "get": operation(summary, &ok, codes, parameters) })
}

fn post(summary: &str, body: &Value, ok: &Value, codes: &[u16], parameters: &[&str]) -> Value {
    let mut described = operation(summary, ok, codes, parameters);
    described["requestBody"] = json!({ "required": true, "content": body });
    json!({ "post": described })
}

fn text(summary: &str, media: &str) -> Value {
    let ok = json!({ media: { "schema": { "type": "string" } } });
    json!({ "get": operation(summary, &ok, &[], &[]) })
}

fn health(summary: &str) -> Value {
    let ok = json!({ "text/plain": { "schema": { "type": "string" } } });
    json!({ "get": operation(summary, &ok, &[503], &[]) })
}

fn either(summary: &str, schema: &str, code: u16, other: &str) -> Value {
    let mut described = get(summary, schema, &[code], &[]);
    described["get"]["responses"][code.to_string()]["content"]["application/json"]["schema"] =
        reference(other);
    described
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let flag = json!({ "type": "boolean" });
    let count = json!({ "type": "integer", "minimum": 0 });
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let list = |of: &str| json!({ "type": "array", "items": reference(of) });
    json!({
        "Object": { "type": "object" },
        "Error": object(&["error"], json!({ "error": text })),
        "Live": object(&["live"], json!({ "live": flag })),
        "ServerReady": object(&["ready"], json!({ "ready": flag })),
        "Ready": object(&["name", "ready"], json!({ "name": text, "ready": flag })),
        "Server": object(&["name", "version", "extensions"], json!({
            "name": text, "version": text, "extensions": { "type": "array", "items": text },
        })),
        "Model": object(&["name", "versions", "platform", "inputs", "outputs"], json!({
            "name": text, "versions": { "type": "array", "items": text }, "platform": text,
            "inputs": list("TensorSpec"), "outputs": list("TensorSpec"),
            "parameters": { "type": "object", "additionalProperties": text },
        })),
        "TensorSpec": object(&["name", "datatype", "shape"], json!({
            "name": text, "datatype": reference("Datatype"), "optional": flag,
            "shape": { "type": "array", "items": { "type": "integer", "minimum": -1 } },
        })),
        "Datatype": { "type": "string", "enum": DataType::ALL.map(DataType::as_str) },
        "Config": object(&["name", "platform", "max_batch_size", "input", "output"], json!({
            "name": text, "platform": text, "max_batch_size": count,
            "input": list("Object"), "output": list("Object"),
        })),
        "Statistics": object(&["model_stats"], json!({ "model_stats": list("ModelStatistics") })),
        "ModelStatistics": object(&["name", "version", "inference_stats", "batch_stats"], json!({
            "name": text, "version": text, "last_inference": count, "inference_count": count,
            "execution_count": count, "inference_stats": { "type": "object" }, "batch_stats": list("Object"),
        })),
        "IndexRequest": object(&[], json!({ "ready": flag })),
        "Index": list("IndexEntry"),
        "IndexEntry": object(&["name", "version", "state", "reason"], json!({
            "name": text, "version": text, "reason": text,
            "state": { "type": "string", "enum": ["READY", "LOADING", "UNAVAILABLE"] },
        })),
        "Parameters": { "type": "object" },
        "InferRequest": object(&["inputs"], json!({
            "id": text, "parameters": reference("Parameters"),
            "inputs": list("InferInput"), "outputs": list("WantedOutput"),
        })),
        "InferInput": object(&["name", "datatype", "shape"], json!({
            "name": text, "datatype": reference("Datatype"), "parameters": reference("Parameters"),
            "shape": { "type": "array", "items": { "type": "integer", "minimum": 0 } },
            "data": { "description": "Elements, flat or nested as the shape says." },
        })),
        "WantedOutput": object(&["name"], json!({
            "name": text, "parameters": reference("Parameters"),
        })),
        "InferResponse": object(&["model_name", "model_version", "outputs"], json!({
            "model_name": text, "model_version": text, "id": text, "outputs": list("InferOutput"),
        })),
        "InferOutput": object(&["name", "datatype", "shape"], json!({
            "name": text, "datatype": reference("Datatype"), "parameters": reference("Parameters"),
            "shape": { "type": "array", "items": count },
            "data": { "type": "array", "items": { "type": ["number", "string", "boolean"] } },
        })),
        "PredictRequest": object(&["instances"], json!({
            "instances": { "type": "array", "minItems": 1 },
        })),
        "EmbeddingsRequest": object(&["model", "input"], json!({
            "model": text, "input": { "description": "A text, texts, token ids, or lists of token ids." },
            "encoding_format": { "type": "string", "enum": ["float", "base64"] },
        })),
        "EmbeddingsResponse": object(&["object", "data", "model", "usage"], json!({
            "object": text, "model": text, "data": list("Object"), "usage": reference("Object"),
        })),
        "PredictResponse": object(&["predictions"], json!({ "predictions": { "type": "array" } })),
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use super::*;
    use crate::http::paths;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = describe(&App::new(1));
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, operations)| {
                let operations = operations.as_object().unwrap();
                operations
                    .keys()
                    .map(|method| (method.clone(), path.clone()))
            })
            .collect();
        let routed: BTreeSet<(String, String)> = paths()
            .listed()
            .iter()
            .map(|(method, path)| ((*method).to_owned(), path.clone()))
            .collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = describe(&App::new(1));
        let mut found = 0;
        let mut open = vec![&document];
        while let Some(value) = open.pop() {
            if let Some(target) = value.get("$ref").and_then(Value::as_str) {
                let pointer = target.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{target}");
                found += 1;
            }
            match value {
                Value::Object(object) => open.extend(object.values()),
                Value::Array(array) => open.extend(array),
                _ => {}
            }
        }
        assert!(found > 50, "{found}");
    }

    #[tokio::test]
    async fn the_document_is_json() {
        let response = document(State(Arc::new(App::new(1)))).await;
        assert_eq!(response.headers()["content-type"], "application/json");
    }
}
