//! `model.yaml`'s `batching`: how requests are put together.

use std::time::Duration;

use serde::Deserialize;

use crate::settings::{Batching, Mode};

/// More rows than anybody runs together.
const MAX_ROWS: usize = 1_000_000;
/// A request that waits longer for company than this waits for nothing good.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// How requests that wait share a run of the model.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Batching"))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawBatching {
    /// Whether requests that wait share a run. Default: where the graph allows it.
    enabled: Option<bool>,
    /// Rows in one run, and in one request, at most.
    max_batch: Option<usize>,
    /// A batch of one of these sizes does not wait for more.
    #[serde(default)]
    preferred: Vec<usize>,
    /// How long a request may wait for company: 500us, 2ms, 0. Default: not at all.
    max_delay: Option<String>,
}

/// Checks the section; an error is a sentence that names the field.
pub(super) fn check(raw: RawBatching) -> Result<Batching, String> {
    if let Some(max) = raw.max_batch.filter(|max| !(1..=MAX_ROWS).contains(max)) {
        return Err(format!(
            "batching.maxBatch is {max}; write the most rows of one run, 1 to {MAX_ROWS}, or enabled: \
             false to run each request alone"
        ));
    }
    let most = raw.max_batch.unwrap_or(MAX_ROWS);
    if let Some(size) = raw
        .preferred
        .iter()
        .find(|size| !(1..=most).contains(*size))
    {
        return Err(format!(
            "batching.preferred holds {size}; write sizes of 1 to {}",
            raw.max_batch
                .map_or(MAX_ROWS.to_string(), |max| format!("maxBatch, {max}"))
        ));
    }
    let max_delay = raw.max_delay.as_deref().map(delay).transpose()?;
    let mut preferred = raw.preferred;
    preferred.sort_unstable();
    preferred.dedup();
    let says_something = raw.max_batch.is_some() || !preferred.is_empty() || max_delay.is_some();
    let mode = match raw.enabled {
        Some(false) => Some(Mode::Alone),
        Some(true) => Some(Mode::Together),
        None => says_something.then_some(Mode::Together),
    };
    Ok(Batching {
        mode,
        max: raw.max_batch,
        preferred,
        max_delay,
    })
}

fn delay(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "batching.maxDelay is {text:?}; write a time of at most {MAX_DELAY:?}, for instance 500us or 2ms"
        )
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let scale = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "" if number == 0.0 => 1.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * scale)
        .ok()
        .filter(|delay| *delay <= MAX_DELAY)
        .ok_or_else(wrong)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Batching, String> {
        check(serde_saphyr::from_str(text).map_err(|e| e.to_string())?)
    }

    #[test]
    fn every_value_is_read_and_saying_something_turns_it_on() {
        assert_eq!(read("{}"), Ok(Batching::default()));
        assert_eq!(
            read("{maxBatch: 16, preferred: [16, 8, 8], maxDelay: 2ms}"),
            Ok(Batching {
                mode: Some(Mode::Together),
                max: Some(16),
                preferred: vec![8, 16],
                max_delay: Some(Duration::from_millis(2)),
            })
        );
        assert_eq!(read("{enabled: true}").unwrap().mode, Some(Mode::Together));
        let alone = read("{enabled: false, maxBatch: 4}").unwrap();
        assert_eq!((alone.mode, alone.max), (Some(Mode::Alone), Some(4)));
    }

    #[test]
    fn a_delay_has_a_unit() {
        for (text, micros) in [
            ("0", 0),
            ("500us", 500),
            ("2ms", 2000),
            ("0.5ms", 500),
            ("1s", 1_000_000),
        ] {
            assert_eq!(delay(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for text in ["", "2", "ms", "2 ms", "-1ms", "11s", "2m", "nan", "inf"] {
            assert!(delay(text).unwrap_err().contains("maxDelay"), "{text}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_what_to_write() {
        let cases = [
            ("{maxBatch: 0}", "enabled: false"),
            ("{maxBatch: 2000000}", "maxBatch is 2000000"),
            (
                "{maxBatch: 8, preferred: [9]}",
                "preferred holds 9; write sizes of 1 to maxBatch, 8",
            ),
            ("{preferred: [0]}", "preferred holds 0"),
            ("{max_batch: 1}", "maxBatch"),
            ("{maxBatch: many}", "many"),
        ];
        for (text, words) in cases {
            let sentence = read(text).unwrap_err();
            assert!(sentence.contains(words), "{text}: {sentence}");
        }
    }
}
