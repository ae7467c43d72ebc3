//! What the server tells of its models: metadata, configuration, statistics. The messages are those of
//! gRPC; REST writes the same as JSON.

use crate::grpc::proto::{
    self, InferBatchStatistics, InferStatistics, ModelInput, ModelOutput, StatisticDuration,
    model_metadata_response::TensorMetadata,
    model_version_policy::{Latest, PolicyChoice},
};
use crate::{
    app::App,
    dtype::DataType,
    model::Model,
    oip,
    signature::TensorSpec,
    statistics::{Span, Total},
};

/// A model's inputs and outputs.
pub fn metadata(app: &App, model: &Model) -> proto::ModelMetadataResponse {
    let tensors = |specs: &[TensorSpec]| {
        let tensor = |spec: &TensorSpec| TensorMetadata {
            name: spec.name.clone(),
            datatype: spec.datatype.as_str().to_owned(),
            shape: spec.shape.clone(),
        };
        specs.iter().map(tensor).collect()
    };
    proto::ModelMetadataResponse {
        name: model.name.clone(),
        versions: app.catalog.versions(&model.name),
        platform: oip::PLATFORM.to_owned(),
        inputs: tensors(&model.signature.inputs),
        outputs: tensors(&model.signature.outputs),
    }
}

/// What Triton would call its configuration. With a batch dimension `dims` leave that out.
#[must_use]
pub fn config(model: &Model) -> proto::ModelConfig {
    let max_batch = max_batch_size(model);
    let dims = |spec: &TensorSpec| {
        let batch = usize::from(max_batch > 0);
        spec.shape.get(batch..).unwrap_or_default().to_vec()
    };
    let input = |spec: &TensorSpec| ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: dims(spec),
        optional: spec.optional,
        ..ModelInput::default()
    };
    let output = |spec: &TensorSpec| ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: dims(spec),
        ..ModelOutput::default()
    };
    let kind = if model.active.is_gpu() {
        proto::model_instance_group::Kind::Gpu
    } else {
        proto::model_instance_group::Kind::Cpu
    };
    proto::ModelConfig {
        name: model.name.clone(),
        platform: oip::PLATFORM.to_owned(),
        backend: "onnxruntime".to_owned(),
        version_policy: Some(proto::ModelVersionPolicy {
            policy_choice: Some(PolicyChoice::Latest(Latest { num_versions: 1 })),
        }),
        max_batch_size: max_batch,
        input: model.signature.inputs.iter().map(input).collect(),
        output: model.signature.outputs.iter().map(output).collect(),
        instance_group: vec![proto::ModelInstanceGroup {
            name: format!("{}_0", model.name),
            count: i32::try_from(model.sessions).unwrap_or(i32::MAX),
            kind: kind.into(),
        }],
        default_model_filename: "model.onnx".to_owned(),
        parameters: providers(model)
            .map(|(name, provider)| {
                let value = proto::ModelParameter {
                    string_value: provider.to_owned(),
                };
                (name.to_owned(), value)
            })
            .into(),
        dynamic_batching: dynamic_batching(model),
        ..proto::ModelConfig::default()
    }
}

/// The provider that was asked for and the one that runs, as the parameters of a model's metadata and of its
/// configuration.
#[must_use]
pub const fn providers(model: &Model) -> [(&'static str, &'static str); 2] {
    [
        ("requested_provider", model.requested.as_str()),
        ("active_provider", model.active.as_str()),
    ]
}

/// How many rows a request may have; 0: the first dimension is no batch. Where nothing was asked for only memory
/// bounds them.
fn max_batch_size(model: &Model) -> i32 {
    match model.max_rows {
        _ if !model.signature.is_batchable() => 0,
        None => i32::MAX,
        Some(rows) => i32::try_from(rows).unwrap_or(i32::MAX),
    }
}

/// How requests run together, if they do.
fn dynamic_batching(model: &Model) -> Option<proto::ModelDynamicBatching> {
    let policy = &model.engine.policy;
    (policy.max_rows > 1).then(|| proto::ModelDynamicBatching {
        preferred_batch_size: policy
            .preferred
            .iter()
            .filter_map(|rows| i32::try_from(*rows).ok())
            .collect(),
        max_queue_delay_microseconds: u64::try_from(policy.max_delay.as_micros())
            .unwrap_or(u64::MAX),
        preserve_ordering: false,
        priority_levels: model.priorities.levels.into(),
        default_priority_level: model.priorities.default.into(),
        default_queue_policy: None,
    })
}

/// The counts of a model since it was loaded.
#[must_use]
pub fn statistics(model: &Model) -> proto::ModelStatistics {
    let counted = &model.meter.statistics;
    let span = |span: &Span| Some(duration(span.total()));
    let batch = |(rows, total): (usize, Total)| InferBatchStatistics {
        batch_size: rows as u64,
        compute_infer: Some(duration(total)),
        // A batch's inputs are read, and its outputs written, request by request: counted above.
        compute_input: Some(StatisticDuration::default()),
        compute_output: Some(StatisticDuration::default()),
    };
    proto::ModelStatistics {
        name: model.name.clone(),
        version: model.version.clone(),
        last_inference: counted.last_millis(),
        inference_count: counted.rows(),
        execution_count: counted.runs(),
        inference_stats: Some(InferStatistics {
            success: span(&counted.success),
            fail: span(&counted.fail),
            queue: span(&counted.queue),
            compute_input: span(&counted.input),
            compute_infer: span(&counted.infer),
            compute_output: span(&counted.output),
            cache_hit: span(&counted.cache_hit),
            cache_miss: span(&counted.cache_miss),
        }),
        batch_stats: counted.batches().into_iter().map(batch).collect(),
    }
}

fn duration(total: Total) -> StatisticDuration {
    StatisticDuration {
        count: total.count,
        ns: total.nanos,
    }
}

/// Triton's name for a datatype in a configuration.
#[must_use]
pub const fn data_type(datatype: DataType) -> proto::DataType {
    match datatype {
        DataType::Bool => proto::DataType::TypeBool,
        DataType::Uint8 => proto::DataType::TypeUint8,
        DataType::Uint16 => proto::DataType::TypeUint16,
        DataType::Uint32 => proto::DataType::TypeUint32,
        DataType::Uint64 => proto::DataType::TypeUint64,
        DataType::Int8 => proto::DataType::TypeInt8,
        DataType::Int16 => proto::DataType::TypeInt16,
        DataType::Int32 => proto::DataType::TypeInt32,
        DataType::Int64 => proto::DataType::TypeInt64,
        DataType::Fp16 => proto::DataType::TypeFp16,
        DataType::Bf16 => proto::DataType::TypeBf16,
        DataType::Fp32 => proto::DataType::TypeFp32,
        DataType::Fp64 => proto::DataType::TypeFp64,
        DataType::Bytes => proto::DataType::TypeString,
    }
}
