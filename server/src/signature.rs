//! What a model takes and gives: names, datatypes, shapes. Decides whether a request's tensor fits.
//!
//! A dimension of -1 is free. Built once from the session; never changes.

use ort::{
    session::Session,
    value::{Outlet, ValueType},
};
use serde::Serialize;

use crate::{dtype::DataType, onnx::Outline};

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorSpec {
    /// The name in the graph.
    pub name: String,
    /// The element type.
    pub datatype: DataType,
    /// The dimensions; -1 where any size will do.
    pub shape: Vec<i64>,
}

/// What a model takes and gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// In the graph's order.
    pub inputs: Vec<TensorSpec>,
    /// In the graph's order.
    pub outputs: Vec<TensorSpec>,
    /// The version of ONNX's operator set.
    pub opset: i64,
}

impl Signature {
    /// Reads a session's signature, or says which input or output the protocol cannot carry.
    pub fn of(session: &Session, outline: &Outline) -> Result<Self, String> {
        Ok(Self {
            inputs: specs("input", session.inputs())?,
            outputs: specs("output", session.outputs())?,
            opset: outline.opset(),
        })
    }

    /// Every input and output has a free first dimension: rows can be batched.
    #[must_use]
    pub fn is_batchable(&self) -> bool {
        let mut all = self.inputs.iter().chain(&self.outputs);
        !self.inputs.is_empty() && all.all(|spec| spec.shape.first() == Some(&-1))
    }

    /// Some input has a free dimension: what the graph makes of it shows only in a run.
    #[must_use]
    pub fn has_free_dimensions(&self) -> bool {
        self.inputs.iter().any(|spec| spec.shape.contains(&-1))
    }

    /// The place of an input.
    #[must_use]
    pub fn input_index(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| spec.name == name)
    }

    /// The place of an output.
    #[must_use]
    pub fn output_index(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|spec| spec.name == name)
    }
}

impl TensorSpec {
    /// Whether a tensor of this shape may go in; else a sentence.
    pub fn accepts(&self, shape: &[i64]) -> Result<(), String> {
        let fits = shape.len() == self.shape.len()
            && shape
                .iter()
                .zip(&self.shape)
                .all(|(got, want)| *want == -1 || got == want);
        if fits {
            return Ok(());
        }
        Err(format!(
            "input {:?} has the shape {}, expected {}{}",
            self.name,
            show_shape(shape),
            show_shape(&self.shape),
            if self.shape.contains(&-1) {
                " (-1 is any size)"
            } else {
                ""
            },
        ))
    }
}

/// `[1,3,-1]`
#[must_use]
pub fn show_shape(shape: &[i64]) -> String {
    let dims: Vec<String> = shape.iter().map(i64::to_string).collect();
    format!("[{}]", dims.join(","))
}

/// `"a", "b"`: names in a sentence.
pub fn show_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn specs(what: &str, outlets: &[Outlet]) -> Result<Vec<TensorSpec>, String> {
    outlets.iter().map(|outlet| spec(what, outlet)).collect()
}

fn spec(what: &str, outlet: &Outlet) -> Result<TensorSpec, String> {
    let name = outlet.name();
    let kind = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            let Some(datatype) = DataType::from_onnx(*ty) else {
                return Err(format!(
                    "the {what} {name:?} has the element type {ty:?}, which the protocol has no name for; \
                     cast it inside the model to one of {}",
                    DataType::ALL.map(DataType::as_str).join(", ")
                ));
            };
            return Ok(TensorSpec {
                name: name.to_owned(),
                datatype,
                shape: shape.to_vec(),
            });
        }
        ValueType::Sequence(_) => "a sequence",
        ValueType::Map { .. } => "a map",
        ValueType::Optional(_) => "an optional",
    };
    Err(not_a_tensor(what, name, kind))
}

/// Why a model with such an input or output is refused.
#[must_use]
pub fn not_a_tensor(what: &str, name: &str, kind: &str) -> String {
    format!(
        "the {what} {name:?} is {kind}, and only tensors can be served; \
         export the model without it (skl2onnx: options={{'zipmap': False}})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_dimension_takes_any_size_and_a_fixed_one_its_own() {
        let spec = TensorSpec {
            name: "x".into(),
            datatype: DataType::Fp32,
            shape: vec![-1, 4],
        };
        for shape in [[1, 4], [0, 4], [900, 4]] {
            assert_eq!(spec.accepts(&shape), Ok(()));
        }
        for shape in [&[4][..], &[1, 5], &[1, 4, 1], &[]] {
            let sentence = spec.accepts(shape).unwrap_err();
            assert!(sentence.contains(&show_shape(shape)), "{sentence}");
            assert!(sentence.contains("[-1,4]"), "{sentence}");
        }
    }
}
