//! What the server tells of itself and its models, as JSON. The facts are those of [`crate::describe`].

use std::collections::BTreeMap;

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::{Value, json};

use super::super::{Answer, Shared, json};
use crate::{
    app::App,
    describe,
    grpc::proto::{
        DataType, ModelConfig, ModelDynamicBatching, ModelStatistics, StatisticDuration,
        model_instance_group::Kind, model_version_policy::PolicyChoice,
    },
    model::Model,
    oip,
};

fn answer(value: &Value) -> Response {
    json(value.to_string())
}

/// `GET /v2`
pub(in crate::http) async fn server_metadata() -> Response {
    answer(&json!({
        "name": oip::SERVER,
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": oip::EXTENSIONS,
    }))
}

fn metadata(app: &App, model: &Model) -> Response {
    answer(&json!({
        "name": model.name,
        "versions": app.catalog.versions(&model.name),
        "platform": oip::PLATFORM,
        "inputs": model.signature.inputs,
        "outputs": model.signature.outputs,
        "parameters": BTreeMap::from(describe::providers(model)),
    }))
}

/// `GET /v2/models/{model}`
pub(in crate::http) async fn model_metadata(
    State(app): Shared,
    Path(model): Path<String>,
) -> Answer {
    Ok(metadata(&app, &*app.catalog.find(&model, None)?))
}

/// `GET /v2/models/{model}/versions/{version}`
pub(in crate::http) async fn version_metadata(
    State(app): Shared,
    Path((model, version)): Path<(String, String)>,
) -> Answer {
    Ok(metadata(&app, &*app.catalog.find(&model, Some(&version))?))
}

/// `GET /v2/models/{model}/ready`
pub(in crate::http) async fn model_ready(State(app): Shared, Path(model): Path<String>) -> Answer {
    app.catalog.find(&model, None)?;
    Ok(answer(&json!({ "name": model, "ready": true })))
}

/// `GET /v2/models/{model}/versions/{version}/ready`
pub(in crate::http) async fn version_ready(
    State(app): Shared,
    Path((model, version)): Path<(String, String)>,
) -> Answer {
    app.catalog.find(&model, Some(&version))?;
    Ok(answer(&json!({ "name": model, "ready": true })))
}

/// `GET /v2/models/{model}/config`
pub(in crate::http) async fn model_config(State(app): Shared, Path(model): Path<String>) -> Answer {
    Ok(answer(&config(&describe::config(
        &*app.catalog.find(&model, None)?,
    ))))
}

/// `GET /v2/models/{model}/versions/{version}/config`
pub(in crate::http) async fn version_config(
    State(app): Shared,
    Path((model, version)): Path<(String, String)>,
) -> Answer {
    let model = app.catalog.find(&model, Some(&version))?;
    Ok(answer(&config(&describe::config(&model))))
}

/// `GET /v2/models/stats`
pub(in crate::http) async fn all_statistics(State(app): Shared) -> Response {
    let models = app.catalog.models();
    let all: Vec<_> = models
        .iter()
        .map(|model| statistics(&describe::statistics(model)))
        .collect();
    answer(&json!({ "model_stats": all }))
}

/// `GET /v2/models/{model}/stats`
pub(in crate::http) async fn model_statistics(
    State(app): Shared,
    Path(model): Path<String>,
) -> Answer {
    // All versions, as Triton has it; a model without one that is ready is the same error as anywhere.
    app.catalog.find(&model, None)?;
    let models = app.catalog.models();
    let mine = models.iter().filter(|one| one.name == model);
    let all: Vec<_> = mine
        .map(|model| statistics(&describe::statistics(model)))
        .collect();
    Ok(answer(&json!({ "model_stats": all })))
}

/// `GET /v2/models/{model}/versions/{version}/stats`
pub(in crate::http) async fn version_statistics(
    State(app): Shared,
    Path((model, version)): Path<(String, String)>,
) -> Answer {
    let model = app.catalog.find(&model, Some(&version))?;
    Ok(answer(
        &json!({ "model_stats": [statistics(&describe::statistics(&model))] }),
    ))
}

/// As Triton writes it: enums by their names, numbers as numbers.
fn config(config: &ModelConfig) -> Value {
    let data_type =
        |number: i32| DataType::try_from(number).map_or("TYPE_INVALID", |kind| kind.as_str_name());
    let inputs: Vec<Value> = config
        .input
        .iter()
        .map(|input| {
            json!({
                "name": input.name,
                "data_type": data_type(input.data_type),
                "format": "FORMAT_NONE",
                "dims": input.dims,
                "is_shape_tensor": false,
                "allow_ragged_batch": input.allow_ragged_batch,
                "optional": input.optional,
            })
        })
        .collect();
    let outputs: Vec<Value> = config
        .output
        .iter()
        .map(|output| {
            json!({
                "name": output.name,
                "data_type": data_type(output.data_type),
                "dims": output.dims,
                "label_filename": output.label_filename,
                "is_shape_tensor": false,
            })
        })
        .collect();
    let groups: Vec<Value> = config
        .instance_group
        .iter()
        .map(|group| {
            let kind = Kind::try_from(group.kind).unwrap_or_default();
            json!({ "name": group.name, "kind": kind.as_str_name(), "count": group.count })
        })
        .collect();
    let parameters: BTreeMap<_, _> = config
        .parameters
        .iter()
        .map(|(name, value)| (name, json!({ "string_value": value.string_value })))
        .collect();
    let mut value = json!({
        "name": config.name,
        "platform": config.platform,
        "backend": config.backend,
        "version_policy": policy(config),
        "max_batch_size": config.max_batch_size,
        "input": inputs,
        "output": outputs,
        "instance_group": groups,
        "default_model_filename": config.default_model_filename,
        "parameters": parameters,
    });
    if let Some(batching) = &config.dynamic_batching {
        value["dynamic_batching"] = dynamic_batching(batching);
    }
    if let Some(cache) = &config.response_cache {
        value["response_cache"] = json!({ "enable": cache.enable });
    }
    value
}

fn policy(config: &ModelConfig) -> Value {
    let choice = config
        .version_policy
        .as_ref()
        .and_then(|policy| policy.policy_choice.as_ref());
    match choice {
        Some(PolicyChoice::Latest(latest)) => {
            json!({ "latest": { "num_versions": latest.num_versions } })
        }
        Some(PolicyChoice::All(_)) => json!({ "all": {} }),
        Some(PolicyChoice::Specific(specific)) => {
            json!({ "specific": { "versions": specific.versions } })
        }
        None => json!({}),
    }
}

fn dynamic_batching(batching: &ModelDynamicBatching) -> Value {
    json!({
        "preferred_batch_size": batching.preferred_batch_size,
        "max_queue_delay_microseconds": batching.max_queue_delay_microseconds,
        "preserve_ordering": batching.preserve_ordering,
        "priority_levels": batching.priority_levels,
        "default_priority_level": batching.default_priority_level,
    })
}

fn statistics(model: &ModelStatistics) -> Value {
    let span = |span: &Option<StatisticDuration>| {
        let span = span.unwrap_or_default();
        json!({ "count": span.count, "ns": span.ns })
    };
    let all = model.inference_stats.unwrap_or_default();
    let batches: Vec<Value> = model
        .batch_stats
        .iter()
        .map(|batch| {
            json!({
                "batch_size": batch.batch_size,
                "compute_input": span(&batch.compute_input),
                "compute_infer": span(&batch.compute_infer),
                "compute_output": span(&batch.compute_output),
            })
        })
        .collect();
    json!({
        "name": model.name,
        "version": model.version,
        "last_inference": model.last_inference,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": {
            "success": span(&all.success),
            "fail": span(&all.fail),
            "queue": span(&all.queue),
            "compute_input": span(&all.compute_input),
            "compute_infer": span(&all.compute_infer),
            "compute_output": span(&all.compute_output),
            "cache_hit": span(&all.cache_hit),
            "cache_miss": span(&all.cache_miss),
        },
        "batch_stats": batches,
    })
}
