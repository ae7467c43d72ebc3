//! What an answer's body says: rows of one output.
//!
//! Four forms are known: V2 (`outputs`, a list of tensors), `predictions` (of V1 and of the server's own pipelines),
//! `embeddings`, and `data` with an `embedding` in each part (OpenAI's). What else stands in an answer (the model's
//! name and version, an id, times) is no part of what it says.

use serde_json::{Map, Value};

/// One output of an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Output {
    /// Along its last axis.
    pub(super) rows: Vec<Row>,
}

/// What stands along the last axis.
#[derive(Debug, PartialEq)]
pub(super) enum Row {
    /// Floating-point numbers; `NaN` stands for what JSON has no number for.
    Scores(Vec<f64>),
    /// Whole numbers and texts: they are the class themselves.
    Labels(Vec<Value>),
    /// Labels or indices of classes, best first.
    Classes(Vec<Value>),
}

impl Row {
    pub(super) fn numbers(&self) -> Option<Vec<f64>> {
        match self {
            Self::Scores(scores) => Some(scores.clone()),
            Self::Labels(labels) => labels.iter().map(Value::as_f64).collect(),
            Self::Classes(_) => None,
        }
    }
}

/// All that an answer says, or one output of it: what `Exact` compares. `None`: there is no such output.
pub(super) fn said<'a>(body: &'a Value, output: Option<&str>) -> Option<&'a Value> {
    match output {
        Some(name) => match body.get("outputs") {
            Some(Value::Array(tensors)) => tensors.iter().find(|one| one["name"] == *name),
            Some(Value::Object(named)) => named.get(name),
            _ => None,
        },
        None => {
            let parts = ["outputs", "predictions", "embeddings", "data"];
            let mut found = parts.iter().filter_map(|part| body.get(part));
            Some(found.next().unwrap_or(body))
        }
    }
}

impl Output {
    /// `None`: the body has no such output, or it cannot be read.
    pub(super) fn of(body: &Value, output: Option<&str>) -> Option<Self> {
        let rows = if let Some(outputs) = body.get("outputs") {
            match outputs {
                Value::Array(_) => tensor(match output {
                    Some(_) => said(body, output)?,
                    None => outputs.get(0)?,
                })?,
                Value::Object(named) => nested(choose(named, output)?)?,
                _ => return None,
            }
        } else if let Some(Value::Array(predictions)) = body.get("predictions") {
            self::predictions(predictions, output)?
        } else if let Some(vectors) = body.get("embeddings") {
            nested(vectors)?
        } else {
            let data = body.get("data")?.as_array()?;
            let vector = |one: &Value| nested(one.get("embedding")?);
            let vectors: Option<Vec<_>> = data.iter().map(vector).collect();
            vectors?.into_iter().flatten().collect()
        };
        Some(Self { rows })
    }
}

/// The named one, or the only one.
fn choose<'a>(named: &'a Map<String, Value>, output: Option<&str>) -> Option<&'a Value> {
    match output {
        Some(name) => named.get(name),
        None if named.len() == 1 => named.values().next(),
        None => None,
    }
}

/// Of a tensor of V2, whose data may stand flat or nested.
fn tensor(tensor: &Value) -> Option<Vec<Row>> {
    let mut leaves = Vec::new();
    flatten(tensor.get("data")?, &mut leaves);
    let shape = tensor.get("shape")?.as_array()?;
    let shape: Option<Vec<usize>> = shape
        .iter()
        .map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok()))
        .collect();
    let shape = shape?;
    let all = shape
        .iter()
        .try_fold(1_usize, |all, n| all.checked_mul(*n))?;
    if all != leaves.len() || all == 0 {
        return None;
    }
    let kind = tensor.get("datatype")?.as_str()?;
    let is_float = kind.starts_with("FP") || kind.starts_with("BF");
    let width = shape.last().copied().unwrap_or(1);
    let row = |row: &[&Value]| match is_float {
        true => Row::Scores(row.iter().map(|value| number(value)).collect()),
        false => ranked(row).unwrap_or_else(|| labels(row)),
    };
    Some(leaves.chunks(width).map(row).collect())
}

fn flatten<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, into)),
        value => into.push(value),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn labels(row: &[&Value]) -> Row {
    Row::Labels(row.iter().map(|value| (*value).clone()).collect())
}

/// Classes as Triton's classification extension writes them, `VALUE:INDEX` or `VALUE:INDEX:LABEL`.
fn ranked(row: &[&Value]) -> Option<Row> {
    let class = |value: &&Value| {
        let (score, class) = value.as_str()?.split_once(':')?;
        let index = class.split(':').next()?;
        let is_class = score.parse::<f64>().is_ok() && index.parse::<u64>().is_ok();
        is_class.then(|| Value::from(class))
    };
    let classes: Option<Vec<Value>> = row.iter().map(class).collect();
    classes.map(Row::Classes)
}

/// Each element is a row, or rows, of a pipeline's classes, of the only output, or of the outputs by name.
fn predictions(predictions: &[Value], output: Option<&str>) -> Option<Vec<Row>> {
    // One item's classes, best first.
    if let Some(row) = classes(predictions) {
        return Some(vec![row]);
    }
    let of_one = |prediction: &Value| match prediction {
        // No class was above the threshold.
        Value::Array(list) if list.is_empty() => Some(vec![Row::Classes(Vec::new())]),
        Value::Array(list) => classes(list)
            .map(|row| vec![row])
            .or_else(|| nested(prediction)),
        Value::Object(named) => nested(choose(named, output)?),
        _ => nested(prediction),
    };
    let rows: Option<Vec<Vec<Row>>> = predictions.iter().map(of_one).collect();
    Some(rows?.into_iter().flatten().collect())
}

/// Objects with a label, or without labels an index. `None`: they are something else.
fn classes(list: &[Value]) -> Option<Row> {
    let class = |value: &Value| {
        value.get("probability")?;
        value.get("label").or_else(|| value.get("index")).cloned()
    };
    let classes: Vec<Value> = list.iter().map(class).collect::<Option<_>>()?;
    (!classes.is_empty()).then_some(Row::Classes(classes))
}

/// Rows of nested arrays without a type: whole numbers throughout are labels.
fn nested(value: &Value) -> Option<Vec<Row>> {
    match value {
        Value::Array(values) if values.iter().any(Value::is_array) => {
            let rows: Option<Vec<Vec<Row>>> = values.iter().map(nested).collect();
            Some(rows?.into_iter().flatten().collect())
        }
        Value::Array(values) => Some(vec![row(&values.iter().collect::<Vec<_>>())?]),
        Value::Object(_) => None,
        value => Some(vec![row(&[value])?]),
    }
}

fn row(values: &[&Value]) -> Option<Row> {
    let is_label = |value: &&Value| value.is_i64() || value.is_u64() || value.is_string();
    if values.iter().any(|value| value.is_object()) {
        return None;
    }
    Some(match values.iter().all(is_label) {
        // A score without a fraction is written with one by ours, and by everybody who writes floats as floats.
        true => labels(values),
        false
            if values
                .iter()
                .all(|value| value.is_number() || value.is_null()) =>
        {
            Row::Scores(values.iter().map(|value| number(value)).collect())
        }
        false => labels(values),
    })
}
