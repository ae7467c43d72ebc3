//! What a model takes and gives: names, datatypes, shapes. Decides whether a request's tensor fits.
//!
//! A dimension of -1 is free. Built once from the session; never changes.

use ort::{
    session::Session,
    value::{Outlet, ValueType},
};
use serde::Serialize;

use crate::{
    dtype::DataType,
    infer::Request,
    onnx::Outline,
    tensor::{Tensor, element_count},
};

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorSpec {
    /// The name in the graph.
    pub name: String,
    /// The element type.
    pub datatype: DataType,
    /// The dimensions; -1 where any size will do.
    pub shape: Vec<i64>,
    /// An input that may be left out: the graph has a value of its own for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// What a model takes and gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// In the graph's order, the optional ones behind the others.
    pub inputs: Vec<TensorSpec>,
    /// In the graph's order.
    pub outputs: Vec<TensorSpec>,
    /// The version of ONNX's operator set.
    pub opset: i64,
}

impl Signature {
    /// Reads a session's signature, or says which input or output the protocol cannot carry.
    pub fn of(session: &Session, outline: &Outline) -> Result<Self, String> {
        let mut inputs = specs("input", session.inputs())?;
        for input in session.overridable_initializers() {
            let mut spec = spec("input", input.name(), input.dtype())?;
            spec.optional = true;
            inputs.push(spec);
        }
        Ok(Self {
            inputs,
            outputs: specs("output", session.outputs())?,
            opset: outline.opset(),
        })
    }

    /// Every input and output has a free first dimension: rows can be batched.
    #[must_use]
    pub fn is_batchable(&self) -> bool {
        let mut all = self.required().chain(&self.outputs);
        self.required().next().is_some() && all.all(|spec| spec.shape.first() == Some(&-1))
    }

    /// The inputs that every request must bring; they stand first.
    pub fn required(&self) -> impl Iterator<Item = &TensorSpec> {
        self.inputs.iter().filter(|spec| !spec.optional)
    }

    /// How many rows a request brings; `None` where it has no rows that others could stand beside: the model
    /// has no batch dimension, or the request's inputs differ in their first one.
    #[must_use]
    pub fn rows(&self, request: &Request) -> Option<usize> {
        if !self.is_batchable() {
            return None;
        }
        let mut given = self.inputs.iter().zip(&request.inputs);
        let first = given.find_map(|(_, tensor)| tensor.as_ref()?.shape.first().copied())?;
        let mut given = self.inputs.iter().zip(&request.inputs);
        let fits = given.all(|(spec, tensor)| match tensor {
            Some(tensor) => spec.shape.first() == Some(&-1) && tensor.shape.first() == Some(&first),
            None => true,
        });
        fits.then(|| usize::try_from(first).ok())?
    }

    /// Whether a request's inputs and the outputs that it wants are this model's; else a sentence.
    pub fn check(&self, request: &Request) -> Result<(), String> {
        if request.inputs.len() != self.inputs.len() {
            return Err(format!(
                "{} inputs were given, and the model has {}",
                request.inputs.len(),
                self.inputs.len()
            ));
        }
        for (spec, input) in self.inputs.iter().zip(&request.inputs) {
            match input {
                Some(tensor) => spec.check(tensor)?,
                None if spec.optional => {}
                None => return Err(format!("the request lacks the input {:?}", spec.name)),
            }
        }
        match request
            .outputs
            .iter()
            .find(|index| **index >= self.outputs.len())
        {
            None => Ok(()),
            Some(index) => Err(format!(
                "output {index} is wanted, and the model has {}",
                self.outputs.len()
            )),
        }
    }

    /// All dimensions but the first of the inputs that every request brings are known.
    #[must_use]
    pub fn has_one_row_shape(&self) -> bool {
        let mut rows = self.required().filter_map(|spec| spec.shape.get(1..));
        rows.all(|row| !row.contains(&-1))
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
    /// Whether a tensor may go in: its datatype, its shape and as many elements as that says; else a sentence.
    fn check(&self, tensor: &Tensor) -> Result<(), String> {
        self.accepts(&tensor.shape)?;
        let datatype = tensor.elements.view().datatype();
        if datatype != self.datatype {
            return Err(format!(
                "input {:?} has the datatype {datatype}, expected {}",
                self.name, self.datatype
            ));
        }
        let (has, expected) = (tensor.elements.len(), element_count(&tensor.shape));
        if Some(has) == expected {
            return Ok(());
        }
        Err(format!(
            "input {:?} has {has} elements, which is not what its shape {} says",
            self.name,
            show_shape(&tensor.shape)
        ))
    }

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
    let specs = outlets.iter();
    specs
        .map(|outlet| spec(what, outlet.name(), outlet.dtype()))
        .collect()
}

fn spec(what: &str, name: &str, kind: &ValueType) -> Result<TensorSpec, String> {
    let kind = match kind {
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
                optional: false,
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

/// Signatures that unit tests write down.
#[cfg(test)]
pub(crate) mod written {
    use super::{DataType, Signature, TensorSpec};

    /// Names, datatypes and shapes.
    pub(crate) type Tensors<'a> = &'a [(&'a str, DataType, &'a [i64])];

    /// The signature of a model with these inputs and outputs, all of them required.
    pub(crate) fn signature(inputs: Tensors<'_>, outputs: Tensors<'_>) -> Signature {
        let specs = |tensors: Tensors<'_>| {
            let spec = |(name, datatype, shape): &(&str, DataType, &[i64])| TensorSpec {
                name: (*name).to_owned(),
                datatype: *datatype,
                shape: shape.to_vec(),
                optional: false,
            };
            tensors.iter().map(spec).collect()
        };
        Signature {
            inputs: specs(inputs),
            outputs: specs(outputs),
            opset: 17,
        }
    }
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
            optional: false,
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

    #[test]
    fn only_a_request_that_fits_may_run() {
        let spec = |name: &str, optional| TensorSpec {
            name: name.into(),
            datatype: DataType::Fp32,
            shape: vec![-1],
            optional,
        };
        let signature = Signature {
            inputs: vec![spec("x", false), spec("scale", true)],
            outputs: vec![spec("y", false)],
            opset: 17,
        };
        let tensor = |datatype, elements: i64| {
            let mut tensor = Tensor::zeros(datatype, vec![elements]);
            tensor.shape = vec![2];
            Some(tensor)
        };
        let good = tensor(DataType::Fp32, 2);
        let table = [
            (vec![good.clone(), None], vec![0], ""),
            (vec![good.clone(), good.clone()], vec![], ""),
            (vec![good.clone()], vec![], "1 inputs were given"),
            (vec![None, good.clone()], vec![], "lacks the input \"x\""),
            (vec![good.clone(), None], vec![1], "output 1 is wanted"),
            (
                vec![tensor(DataType::Fp64, 2), None],
                vec![],
                "FP64, expected FP32",
            ),
            (vec![tensor(DataType::Fp32, 3), None], vec![], "3 elements"),
        ];
        for (inputs, outputs, part) in table {
            let request = Request {
                outputs,
                ..Request::new(inputs)
            };
            match signature.check(&request) {
                Ok(()) => assert_eq!(part, ""),
                Err(sentence) => assert!(!part.is_empty() && sentence.contains(part), "{sentence}"),
            }
        }
    }
}
