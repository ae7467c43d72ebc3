//! The access log: one line a request, in the format of the log.

use std::{sync::atomic::Ordering, time::Duration};

use super::trail::{Phase, Story, Trail};

/// What the lines are filtered by.
pub const TARGET: &str = "access";

pub(super) fn write(trail: &Trail, story: &Story) {
    let ms = |phase| story.took(phase).map(millis);
    let prediction = story.prediction.as_ref();
    let named = prediction.filter(|prediction| !prediction.model.is_empty());
    let bytes = trail.bytes.as_ref();
    let count = |bytes: &std::sync::atomic::AtomicU64| bytes.load(Ordering::Relaxed);
    tracing::info!(
        target: TARGET,
        method = trail.head.method.as_str(),
        path = &*trail.head.path,
        code = story.final_code(),
        model = named.map(|prediction| &*prediction.model),
        version = named.map(|prediction| &*prediction.version),
        protocol = prediction.map(|prediction| prediction.protocol.as_str()),
        id = trail.head.id.to_str().unwrap_or_default(),
        trace_id = trail.head.trace_id.map(tracing::field::display),
        ms = millis(trail.since.elapsed()),
        preprocess_ms = ms(Phase::Preprocess),
        queue_ms = ms(Phase::Queue),
        inference_ms = ms(Phase::Inference),
        postprocess_ms = ms(Phase::Postprocess),
        batch = story.batch,
        bytes_in = bytes.map(|bytes| count(&bytes.read)),
        bytes_out = bytes.map(|bytes| count(&bytes.written)),
        "request"
    );
}

/// Microseconds are enough.
fn millis(took: Duration) -> f64 {
    took.as_micros() as f64 / 1e3
}
