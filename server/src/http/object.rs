//! A body that must be a JSON object, and what is said of one that is not.

use serde::Deserialize;

use super::error::ApiError;

/// Reads it; serde alone would take an array of the fields, too.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    let parsed = serde_json::from_slice(body).map_err(|error| malformed(body, &error))?;
    match body.trim_ascii_start().first() {
        Some(b'{') => Ok(parsed),
        _ => Err(ApiError::bad("the body is JSON, but not an object {...}")),
    }
}

/// 400 for a body that is no JSON or not this protocol's; NaN is what most often breaks one.
fn malformed(body: &[u8], error: &serde_json::Error) -> ApiError {
    use serde_json::error::Category;
    if body.trim_ascii().is_empty() {
        return ApiError::bad("the body is empty, expected JSON");
    }
    if error.classify() == Category::Data {
        return ApiError::bad(format!("the body is not what this path reads: {error}"));
    }
    let line = body
        .split(|byte| *byte == b'\n')
        .nth(error.line().saturating_sub(1));
    let near = line.map(|line| {
        let end = (error.column() + 8).min(line.len());
        &line[error.column().saturating_sub(9).min(end)..end]
    });
    let near = String::from_utf8_lossy(near.unwrap_or_default()).into_owned();
    let hint = if near.contains("NaN") || near.contains("Inf") {
        "; JSON has no NaN and no infinity: write the strings \"NaN\", \"Infinity\", \"-Infinity\""
    } else {
        ""
    };
    ApiError::bad(format!("the body is not valid JSON: {error}{hint}"))
}
