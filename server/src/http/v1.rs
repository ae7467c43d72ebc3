//! V1 predict in the row format: `{"instances": [...]}` → `{"predictions": [...]}`.
//!
//! An instance is a row of the only input, or an object with a row of each input. Rows stand one upon the
//! other on the first axis. A prediction is a row of the only output, or an object of all outputs.

use std::{borrow::Cow, collections::BTreeMap, time::Instant};

use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{error::ApiError, object};
use crate::{
    app::App,
    infer::{self, Outcome, Request},
    json::{data, write},
    model::Model,
    signature::{Signature, TensorSpec, show_names, show_shape},
    tensor::{Elements, Tensor},
};

#[derive(Deserialize)]
struct PredictRequest<'a> {
    #[serde(borrow, default)]
    instances: Option<Vec<&'a RawValue>>,
}

/// `GET /v1/models/{m}`
pub(super) fn status(name: &str, ready: bool) -> serde_json::Value {
    json!({ "name": name, "ready": ready })
}

/// Runs a request and writes its answer.
pub(super) async fn predict(app: &App, model: &Model, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let start = Instant::now();
    let inputs = parse(body, &model.signature)?;
    model.meter.preprocessed(start.elapsed());
    let rows = inputs
        .iter()
        .flatten()
        .next()
        .and_then(|input| input.shape.first().copied())
        .unwrap_or(0);
    let outcome = infer::run(app, model, Request::new(inputs)).await?;
    let start = Instant::now();
    let answer = answer(&model.signature, &outcome, rows)?;
    model.meter.postprocessed(start.elapsed());
    Ok(answer)
}

fn parse(body: &[u8], signature: &Signature) -> Result<Vec<Option<Tensor>>, ApiError> {
    let request: PredictRequest<'_> = object::read(body)?;
    let Some(instances) = request.instances else {
        return Err(ApiError::bad(
            "the body has no \"instances\"; expected {\"instances\": [...]}, one row each",
        ));
    };
    if instances.is_empty() {
        return Err(ApiError::bad(
            "\"instances\" is empty; expected at least one row",
        ));
    }
    let by_name = instances[0].get().trim_start().starts_with('{');
    let mut columns: Vec<Column> = signature.inputs.iter().map(Column::new).collect();
    for (row, instance) in instances.iter().enumerate() {
        if by_name {
            named_row(&mut columns, row, instance)?;
        } else if let [column] = columns.as_mut_slice() {
            column.push(row, instance)?;
        } else if signature.required().count() == 1 {
            // The others are optional and left out.
            columns[0].push(row, instance)?;
        } else {
            return Err(ApiError::bad(format!(
                "the model has {} inputs: each instance must be an object with {}",
                columns.len(),
                show_names(signature.inputs.iter().map(|spec| spec.name.as_str()))
            )));
        }
    }
    columns
        .into_iter()
        .map(|column| column.finish(instances.len()))
        .collect()
}

fn named_row(columns: &mut [Column<'_>], row: usize, instance: &RawValue) -> Result<(), ApiError> {
    let cells: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(instance.get()).map_err(|_| {
            ApiError::bad(format!(
                "instance {row} is no object, and instance 0 is one"
            ))
        })?;
    for column in columns.iter_mut() {
        let name = column.spec.name.as_str();
        match cells.get(name) {
            Some(cell) if column.rows == row => column.push(row, cell)?,
            None if column.spec.optional && column.rows == 0 => {}
            Some(_) => {
                return Err(ApiError::bad(format!(
                    "instance {row} has the input {name:?}, and instance 0 lacks it"
                )));
            }
            None => {
                return Err(ApiError::bad(format!(
                    "instance {row} lacks the input {name:?}"
                )));
            }
        }
    }
    let stray = cells
        .keys()
        .find(|name| columns.iter().all(|column| column.spec.name != **name));
    match stray {
        None => Ok(()),
        Some(name) => Err(ApiError::bad(format!(
            "instance {row} has {name:?}, which is no input; the model's inputs are {}",
            show_names(columns.iter().map(|column| column.spec.name.as_str()))
        ))),
    }
}

/// One input, row by row.
struct Column<'s> {
    spec: &'s TensorSpec,
    elements: Elements,
    row_shape: Option<Vec<i64>>,
    rows: usize,
}

impl<'s> Column<'s> {
    fn new(spec: &'s TensorSpec) -> Self {
        Self {
            spec,
            elements: Elements::with_capacity(spec.datatype, 0),
            row_shape: None,
            rows: 0,
        }
    }

    fn push(&mut self, row: usize, cell: &RawValue) -> Result<(), ApiError> {
        let name = &self.spec.name;
        let shape = data::read(cell.get(), self.spec.datatype, &mut self.elements)
            .map_err(|error| ApiError::bad(format!("instance {row}, input {name:?}: {error}")))?;
        let first = self.row_shape.get_or_insert_with(|| shape.clone());
        if *first != shape {
            return Err(ApiError::bad(format!(
                "instance {row}, input {name:?}: its shape is {}, and that of instance 0 is {}",
                show_shape(&shape),
                show_shape(first)
            )));
        }
        self.rows += 1;
        Ok(())
    }

    /// `None` for an optional input that was left out.
    fn finish(self, rows: usize) -> Result<Option<Tensor>, ApiError> {
        if self.rows == 0 && self.spec.optional {
            return Ok(None);
        }
        let mut shape = vec![i64::try_from(rows).unwrap_or(i64::MAX)];
        shape.extend(self.row_shape.unwrap_or_default());
        self.spec.accepts(&shape).map_err(ApiError::bad)?;
        Ok(Some(Tensor {
            shape,
            elements: self.elements,
        }))
    }
}

fn answer(signature: &Signature, outcome: &Outcome, rows: i64) -> Result<Vec<u8>, ApiError> {
    for (spec, value) in signature.outputs.iter().zip(&outcome.outputs) {
        let shape = value.shape();
        if shape.first() != Some(&rows) {
            return Err(ApiError::bad(format!(
                "the output {:?} has the shape {}, not one row for each of the {rows} instances; \
                 use /v2/models/…/infer for this model",
                spec.name,
                show_shape(shape)
            )));
        }
    }
    let outputs: Result<Vec<_>, ApiError> = signature
        .outputs
        .iter()
        .zip(&outcome.outputs)
        .map(|(spec, value)| {
            let mut text = Vec::new();
            let (elements, shape) = (value.elements()?, value.shape());
            write::elements(&mut text, elements, shape, write::Layout::Nested);
            Ok((spec.name.as_str(), text))
        })
        .collect();
    let mut out = b"{\"predictions\":".to_vec();
    match outputs?.as_slice() {
        [(_, text)] => out.extend_from_slice(text),
        outputs => objects(&mut out, outputs)?,
    }
    out.push(b'}');
    Ok(out)
}

/// Columns of JSON rows into an array of objects.
fn objects(out: &mut Vec<u8>, outputs: &[(&str, Vec<u8>)]) -> Result<(), ApiError> {
    let unreadable = |error| ApiError::internal(format!("an output is no JSON array: {error}"));
    let columns: Result<Vec<Vec<&RawValue>>, ApiError> = outputs
        .iter()
        .map(|(_, text)| serde_json::from_slice(text).map_err(unreadable))
        .collect();
    let columns = columns?;
    out.push(b'[');
    for row in 0..columns.first().map_or(0, Vec::len) {
        out.extend_from_slice(if row == 0 { b"{" } else { b",{" });
        for (place, ((name, _), column)) in outputs.iter().zip(&columns).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            write::string(out, name);
            out.push(b':');
            out.extend_from_slice(column[row].get().as_bytes());
        }
        out.push(b'}');
    }
    out.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dtype::DataType, signature::written::signature};

    fn tensor(tensors: &[Option<Tensor>], index: usize) -> &Tensor {
        tensors[index].as_ref().unwrap()
    }

    #[test]
    fn an_optional_input_is_in_every_instance_or_in_none() {
        let inputs: [(&str, DataType, &[i64]); 2] =
            [("a", DataType::Int64, &[-1]), ("b", DataType::Int64, &[-1])];
        let mut signature = signature(&inputs, &[]);
        signature.inputs[1].optional = true;
        for body in [
            r#"{"instances": [1, 2]}"#,
            r#"{"instances": [{"a": 1}, {"a": 2}]}"#,
        ] {
            let tensors = parse(body.as_bytes(), &signature).unwrap();
            assert_eq!(tensor(&tensors, 0).shape, [2]);
            assert_eq!(tensors[1], None);
        }
        let body = br#"{"instances": [{"a": 1, "b": 3}, {"a": 2, "b": 4}]}"#;
        let tensors = parse(body, &signature).unwrap();
        assert_eq!(tensor(&tensors, 1).elements, Elements::Int64(vec![3, 4]));
        for (body, part) in [
            (
                r#"{"instances": [{"a": 1}, {"a": 2, "b": 4}]}"#,
                "instance 0 lacks",
            ),
            (
                r#"{"instances": [{"a": 1, "b": 4}, {"a": 2}]}"#,
                "instance 1 lacks",
            ),
        ] {
            let error = parse(body.as_bytes(), &signature).unwrap_err();
            assert!(error.message.contains(part), "{body}: {}", error.message);
        }
    }

    #[test]
    fn rows_of_one_input_stand_upon_each_other() {
        let signature = signature(&[("x", DataType::Fp32, &[-1, 2])], &[]);
        let tensors = parse(br#"{"instances": [[1,2],[3,4],[5,6]]}"#, &signature).unwrap();
        assert_eq!(tensor(&tensors, 0).shape, [3, 2]);
        assert_eq!(
            tensor(&tensors, 0).elements,
            Elements::Fp32(vec![1., 2., 3., 4., 5., 6.])
        );
    }

    #[test]
    fn rows_of_several_inputs_are_objects() {
        let inputs: [(&str, DataType, &[i64]); 2] = [
            ("a", DataType::Int64, &[-1]),
            ("b", DataType::Bytes, &[-1, 1]),
        ];
        let signature = signature(&inputs, &[]);
        let body = br#"{"instances": [{"a": 1, "b": ["x"]}, {"b": ["y"], "a": 2}]}"#;
        let tensors = parse(body, &signature).unwrap();
        assert_eq!(tensor(&tensors, 0).shape, [2]);
        assert_eq!(tensor(&tensors, 1).shape, [2, 1]);
        assert_eq!(
            tensor(&tensors, 1).elements,
            Elements::Bytes(vec!["x".into(), "y".into()])
        );
    }

    #[test]
    fn each_wrong_body_has_a_sentence_of_its_own() {
        let one = signature(&[("x", DataType::Fp32, &[-1, 2])], &[]);
        let two = signature(
            &[("a", DataType::Fp32, &[-1]), ("b", DataType::Fp32, &[-1])],
            &[],
        );
        let table: [(&Signature, &str, &str); 8] = [
            (&one, r#"{"inputs": []}"#, "no \"instances\""),
            (&one, r#"{"instances": []}"#, "is empty"),
            (&one, r#"{"instances": [[1,2],[3]]}"#, "instance 1"),
            (&one, r#"{"instances": [[1,"a"]]}"#, "element 1 is \"a\""),
            (&one, r#"{"instances": [[1,2,3]]}"#, "[1,3]"),
            (&two, r#"{"instances": [1]}"#, "must be an object"),
            (
                &two,
                r#"{"instances": [{"a": 1}]}"#,
                "lacks the input \"b\"",
            ),
            (
                &two,
                r#"{"instances": [{"a": 1, "b": 2, "c": 3}]}"#,
                "\"c\", which is no input",
            ),
        ];
        for (signature, body, part) in table {
            let error = parse(body.as_bytes(), signature).unwrap_err();
            assert!(error.message.contains(part), "{body}: {}", error.message);
        }
    }
}
