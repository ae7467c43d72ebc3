//! The counters that dashboards made for Triton ask for: its names and labels, our numbers.
//!
//! Inputs: the models and their statistics. Output: text behind our own series. Their type is `unknown`, because a
//! counter of OpenMetrics ends in `_total` and Triton's do not; `rate()` reads them all the same. They count
//! since the model was loaded, as the statistics of the protocol do. What we do not measure is left out.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text::encode_registry},
    metrics::MetricType,
    registry::Registry,
};

use super::{Meter, families::ModelLabels};
use crate::{model::Model, statistics::Span};

/// One series of Triton's: its name, its help, and where its number stands in [`Numbers`].
const SERIES: [(&str, &str); 10] = [
    (
        "nv_inference_request_success",
        "Requests answered with tensors",
    ),
    (
        "nv_inference_request_failure",
        "Requests answered with an error",
    ),
    (
        "nv_inference_count",
        "Rows that ran, kept answers not counted",
    ),
    ("nv_inference_exec_count", "Runs of a session"),
    (
        "nv_inference_request_duration_us",
        "Time of the requests that were answered with tensors, from head to answer",
    ),
    (
        "nv_inference_queue_duration_us",
        "Time that requests waited for a session",
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Time from bodies to tensors",
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Time inside ONNX Runtime, for each request of a batch",
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Time from tensors to bodies",
    ),
    (
        "nv_inference_pending_request_count",
        "Requests that wait for a session",
    ),
];

#[derive(Debug)]
struct Numbers {
    labels: ModelLabels,
    /// In the order of [`SERIES`].
    values: [u64; SERIES.len()],
}

impl Numbers {
    fn of(meter: &Meter, pending: usize) -> Self {
        let statistics = &meter.statistics;
        let micros = |span: &Span| span.total().nanos / 1000;
        Self {
            labels: meter.labels.clone(),
            values: [
                statistics.success.total().count,
                statistics.fail.total().count,
                statistics.rows(),
                statistics.runs(),
                micros(&statistics.success),
                micros(&statistics.queue),
                micros(&statistics.input),
                micros(&statistics.infer),
                micros(&statistics.output),
                pending as u64,
            ],
        }
    }
}

#[derive(Debug)]
struct Aliases(Vec<Numbers>);

impl Collector for Aliases {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (place, (name, help)) in SERIES.into_iter().enumerate() {
            let mut series = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
            for numbers in &self.0 {
                let mut one = series.encode_family(&numbers.labels)?;
                one.encode_gauge(&numbers.values[place])?;
            }
        }
        Ok(())
    }
}

/// Writes the series of all models, without the end of the document.
pub(super) fn encode<'m>(
    text: &mut String,
    models: impl IntoIterator<Item = &'m Model>,
) -> Result<(), std::fmt::Error> {
    let models = models.into_iter();
    let numbers = models.map(|model| Numbers::of(&model.meter, model.engine.depth()));
    encode_numbers(text, numbers.collect())
}

fn encode_numbers(text: &mut String, numbers: Vec<Numbers>) -> Result<(), std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Aliases(numbers)));
    encode_registry(text, &registry)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Metrics, Protocol};

    #[test]
    fn tritons_names_tell_our_numbers() {
        let metrics = Metrics::default();
        let meter = metrics.meter("m", "3");
        meter.answered(Protocol::V2, 200, Duration::from_micros(700));
        meter.answered(Protocol::V1, 200, Duration::from_micros(300));
        meter.answered(Protocol::V2, 503, Duration::from_micros(9000));
        meter.preprocessed(Duration::from_micros(20));
        meter.inferred(Duration::from_micros(30), Duration::from_micros(40), 8);
        meter.postprocessed(Duration::from_micros(50));
        meter.ran(8, Duration::from_micros(40));
        let mut text = String::new();
        encode_numbers(&mut text, vec![Numbers::of(&meter, 5)]).unwrap();
        for (name, value) in [
            ("request_success", 2),
            ("request_failure", 1),
            ("count", 8),
            ("exec_count", 1),
            ("request_duration_us", 1000),
            ("queue_duration_us", 30),
            ("compute_input_duration_us", 20),
            ("compute_infer_duration_us", 40),
            ("compute_output_duration_us", 50),
            ("pending_request_count", 5),
        ] {
            let line = format!("nv_inference_{name}{{model=\"m\",version=\"3\"}} {value}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
