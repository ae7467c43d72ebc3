//! The Open Inference Protocol V2 as REST and gRPC share it: from what a request says of its tensors to the
//! model's own order, and from outputs to what was asked for. Every refusal is a sentence.

use std::time::Instant;

use crate::{
    classes,
    dtype::DataType,
    infer::Request,
    model::Model,
    output::{Output, Unreadable},
    parameters::{OfOutput, OfRequest},
    signature::{Signature, TensorSpec, show_names, show_shape},
    tensor::{Tensor, View, element_count},
};

/// What the protocol calls a model that ONNX Runtime runs.
pub const PLATFORM: &str = "onnxruntime_onnx";
/// The server's name in its metadata.
pub const SERVER: &str = "ortolan";

/// The protocol's extensions that are answered here; names are Triton's.
pub const EXTENSIONS: [&str; 7] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

/// A request's inputs as they come in, put into the model's order.
pub struct Inputs<'a> {
    signature: &'a Signature,
    tensors: Vec<Option<Tensor>>,
}

impl<'a> Inputs<'a> {
    /// None yet.
    #[must_use]
    pub fn new(signature: &'a Signature) -> Self {
        let tensors = signature.inputs.iter().map(|_| None).collect();
        Self { signature, tensors }
    }

    /// Checks what a request says of an input; gives its place and how many elements its shape has.
    pub fn declare(
        &self,
        name: &str,
        datatype: &str,
        shape: &[i64],
    ) -> Result<Declared<'a>, String> {
        let Some(index) = self.signature.input_index(name) else {
            return Err(format!(
                "there is no input {name:?}; the model's inputs are {}",
                names(&self.signature.inputs)
            ));
        };
        if self.tensors[index].is_some() {
            return Err(format!("the input {name:?} is given twice"));
        }
        let spec = &self.signature.inputs[index];
        let Some(named) = DataType::from_name(datatype) else {
            return Err(format!(
                "input {name:?} has the unknown datatype {datatype:?}; the datatypes are {}",
                DataType::ALL.map(DataType::as_str).join(", ")
            ));
        };
        if named != spec.datatype {
            return Err(format!(
                "input {name:?} has the datatype {named}, expected {}",
                spec.datatype
            ));
        }
        let Some(count) = element_count(shape) else {
            return Err(format!(
                "input {name:?} has the shape {}: a dimension is negative or their product too large",
                show_shape(shape)
            ));
        };
        spec.accepts(shape)?;
        Ok(Declared { index, spec, count })
    }

    /// Takes a declared input's tensor.
    pub fn take(&mut self, declared: &Declared<'_>, tensor: Tensor) {
        self.tensors[declared.index] = Some(tensor);
    }

    /// All of them in the model's order, or which one is missing.
    pub fn finish(self) -> Result<Vec<Option<Tensor>>, String> {
        let given = self.signature.inputs.iter().zip(&self.tensors);
        let missing = given.filter(|(spec, tensor)| tensor.is_none() && !spec.optional);
        let missing = show_names(missing.map(|(spec, _)| spec.name.as_str()));
        if missing.is_empty() {
            Ok(self.tensors)
        } else {
            Err(format!("the request lacks the input {missing}"))
        }
    }
}

/// An input whose name, datatype and shape fit the model.
pub struct Declared<'a> {
    index: usize,
    /// The model's own description of it.
    pub spec: &'a TensorSpec,
    /// The product of its shape.
    pub count: usize,
}

/// `"a", "b"`: the names of inputs or outputs, for a sentence.
#[must_use]
pub fn names(specs: &[TensorSpec]) -> String {
    show_names(specs.iter().map(|spec| spec.name.as_str()))
}

/// An output that a request wants, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its place among the model's outputs.
    pub index: usize,
    /// As bytes.
    pub binary: bool,
    /// As the best classes of each row instead of the scores.
    pub classes: Option<usize>,
}

/// What runs for a request whose inputs, outputs and parameters were read.
#[must_use]
pub fn inference(
    inputs: Vec<Option<Tensor>>,
    wanted: &[Wanted],
    parameters: &OfRequest,
    deadline: Option<Instant>,
) -> Request {
    Request {
        inputs,
        outputs: wanted.iter().map(|output| output.index).collect(),
        priority: u32::try_from(parameters.priority).unwrap_or(u32::MAX),
        deadline,
    }
}

/// The outputs that a request wants, all when it names none. `binary` is for those that do not say.
pub fn wanted<'n>(
    signature: &Signature,
    named: impl ExactSizeIterator<Item = Result<(&'n str, OfOutput), String>>,
    binary: bool,
) -> Result<Vec<Wanted>, String> {
    if named.len() == 0 {
        let all = 0..signature.outputs.len();
        let plain = |index| Wanted {
            index,
            binary,
            classes: None,
        };
        return Ok(all.map(plain).collect());
    }
    named
        .map(|output| {
            let (name, parameters) = output?;
            let Some(index) = signature.output_index(name) else {
                return Err(format!(
                    "there is no output {name:?}; the model's outputs are {}",
                    names(&signature.outputs)
                ));
            };
            let spec = &signature.outputs[index];
            let has_scores = !matches!(spec.datatype, DataType::Bool | DataType::Bytes);
            if parameters.classes.is_some() && !has_scores {
                return Err(format!(
                    "the output {name:?} is {}, and only numbers can be ranked: leave the parameter \
                     \"classification\" out",
                    spec.datatype
                ));
            }
            Ok(Wanted {
                index,
                binary: parameters.binary.unwrap_or(binary),
                classes: parameters.classes,
            })
        })
        .collect()
}

/// An output as it is answered.
pub enum Answered<'a> {
    /// As the model gave it.
    Whole(&'a Output),
    /// The best classes of each row, with their shape.
    Classes(Vec<i64>, Vec<String>),
}

impl<'a> Answered<'a> {
    /// An output, or its classes if those are wanted.
    pub fn of(model: &Model, wanted: &Wanted, output: &'a Output) -> Result<Self, Unreadable> {
        match wanted.classes {
            None => Ok(Self::Whole(output)),
            Some(count) => {
                let batched = model.signature.is_batchable();
                let (shape, classes) = rank(
                    output.elements()?,
                    output.shape(),
                    batched,
                    count,
                    labels(model, wanted.index),
                );
                Ok(Self::Classes(shape, classes))
            }
        }
    }

    /// Its datatype.
    #[must_use]
    pub fn datatype(&self) -> DataType {
        match self {
            Self::Whole(output) => output.datatype(),
            Self::Classes(..) => DataType::Bytes,
        }
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> &[i64] {
        match self {
            Self::Whole(output) => output.shape(),
            Self::Classes(shape, _) => shape,
        }
    }

    /// Its elements.
    pub fn elements(&self) -> Result<View<'_>, Unreadable> {
        match self {
            Self::Whole(output) => output.elements(),
            Self::Classes(_, classes) => Ok(View::Bytes(classes)),
        }
    }
}

/// The labels that lie beside the model: those that `config.pbtxt` names for this output, else the pipeline's.
fn labels(model: &Model, output: usize) -> &[String] {
    let name = model.signature.outputs.get(output).map(|spec| &spec.name);
    if let Some(labels) = name.and_then(|name| model.labels.get(name)) {
        return labels;
    }
    let pipeline = model.pipeline.as_ref();
    pipeline.map_or(&[], |pipeline| pipeline.writer.labels())
}

/// As Triton does it: of a batch each row is ranked by itself, of anything else all elements together.
fn rank(
    scores: View<'_>,
    shape: &[i64],
    batched: bool,
    count: usize,
    labels: &[String],
) -> (Vec<i64>, Vec<String>) {
    let rows = match shape.first() {
        Some(rows) if batched => usize::try_from(*rows).unwrap_or(0),
        _ => 1,
    };
    let row = scores.len().checked_div(rows).unwrap_or(0);
    let best = match scores {
        View::Uint8(scores) => classes::rank(scores, row, count, labels),
        View::Uint16(scores) => classes::rank(scores, row, count, labels),
        View::Uint32(scores) => classes::rank(scores, row, count, labels),
        View::Uint64(scores) => classes::rank(scores, row, count, labels),
        View::Int8(scores) => classes::rank(scores, row, count, labels),
        View::Int16(scores) => classes::rank(scores, row, count, labels),
        View::Int32(scores) => classes::rank(scores, row, count, labels),
        View::Int64(scores) => classes::rank(scores, row, count, labels),
        View::Fp16(scores) => classes::rank(scores, row, count, labels),
        View::Bf16(scores) => classes::rank(scores, row, count, labels),
        View::Fp32(scores) => classes::rank(scores, row, count, labels),
        View::Fp64(scores) => classes::rank(scores, row, count, labels),
        // `wanted` has refused these.
        View::Bool(_) | View::Bytes(_) => Vec::new(),
    };
    let each = best.len().checked_div(rows).unwrap_or(0) as i64;
    let shape = if batched {
        vec![rows as i64, each]
    } else {
        vec![each]
    };
    (shape, best)
}

/// The shape of an input of `count` elements, from a model's shape with at most one free dimension.
///
/// This is what a raw request needs, whose body is the tensor and nothing more. Where two dimensions are
/// free and the first of them is the first of all, that one is taken for a batch of 1.
pub fn infer_shape(spec: &TensorSpec, count: usize) -> Result<Vec<i64>, String> {
    let mut shape = spec.shape.clone();
    let mut free: Vec<usize> = (0..shape.len()).filter(|axis| shape[*axis] < 0).collect();
    if free.len() == 2 && free[0] == 0 {
        shape[0] = 1;
        free.remove(0);
    }
    let fixed: i64 = shape.iter().filter(|dim| **dim >= 0).product();
    match free[..] {
        [] if element_count(&shape) == Some(count) => Ok(shape),
        [axis] if fixed > 0 && count.is_multiple_of(fixed as usize) => {
            shape[axis] = (count / fixed as usize) as i64;
            Ok(shape)
        }
        [] | [_] => Err(format!(
            "the body holds {count} elements of {}, which do not fill the shape {} of the input {:?}",
            spec.datatype,
            show_shape(&spec.shape),
            spec.name
        )),
        _ => Err(format!(
            "the input {:?} has the shape {}, with too many free dimensions to be told from a body without \
             a JSON part; say the shape in one, and its length in Inference-Header-Content-Length",
            spec.name,
            show_shape(&spec.shape)
        )),
    }
}

/// The only input of a model, for a raw request.
pub fn only_input(signature: &Signature) -> Result<&TensorSpec, String> {
    let mut required = signature.inputs.iter().filter(|spec| !spec.optional);
    match (required.next(), required.next()) {
        (Some(spec), None) => Ok(spec),
        _ => Err(format!(
            "a body without a JSON part is for a model of one input, and this one has {}; say which is which \
             in a JSON part, and its length in Inference-Header-Content-Length",
            names(&signature.inputs)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, datatype: DataType, shape: &[i64], optional: bool) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
            optional,
        }
    }

    #[test]
    fn a_raw_bodys_shape_is_told_from_its_length() {
        for (shape, count, expected) in [
            (&[2, 3][..], 6, Some(&[2, 3][..])),
            (&[2, 3], 7, None),
            (&[-1, 4], 12, Some(&[3, 4])),
            (&[-1, 4], 0, Some(&[0, 4])),
            (&[-1, 4], 13, None),
            (&[-1, 3, -1], 12, Some(&[1, 3, 4])),
            (&[3, -1, -1], 12, None),
            (&[-1, -1, -1], 12, None),
            (&[], 1, Some(&[])),
            (&[-1, 0], 0, None),
        ] {
            let spec = spec("x", DataType::Fp32, shape, false);
            let inferred = infer_shape(&spec, count);
            assert_eq!(inferred.as_deref().ok(), expected, "{shape:?} {count}");
        }
    }

    #[test]
    fn inputs_come_in_any_order_and_the_optional_ones_may_stay_away() {
        let signature = Signature {
            inputs: vec![
                spec("a", DataType::Fp32, &[-1], false),
                spec("b", DataType::Int64, &[2], false),
                spec("scale", DataType::Fp32, &[], true),
            ],
            outputs: Vec::new(),
            opset: 17,
        };
        let mut inputs = Inputs::new(&signature);
        let b = inputs.declare("b", "INT64", &[2]).unwrap();
        inputs.take(&b, Tensor::zeros(DataType::Int64, vec![2]));
        for (name, datatype, shape, part) in [
            ("b", "INT64", &[2][..], "twice"),
            ("c", "INT64", &[2], "no input \"c\""),
            ("a", "FLOAT", &[2], "unknown datatype"),
            ("a", "INT64", &[2], "expected FP32"),
            ("a", "FP32", &[-1], "negative"),
            ("a", "FP32", &[1, 1], "expected [-1]"),
        ] {
            let sentence = inputs.declare(name, datatype, shape).err().unwrap();
            assert!(sentence.contains(part), "{sentence}");
        }
        let sentence = Inputs::new(&signature).finish().unwrap_err();
        assert!(
            sentence.ends_with("lacks the input \"a\", \"b\""),
            "{sentence}"
        );
        let a = inputs.declare("a", "FP32", &[3]).unwrap();
        assert_eq!(a.count, 3);
        inputs.take(&a, Tensor::zeros(DataType::Fp32, vec![3]));
        let tensors = inputs.finish().unwrap();
        assert_eq!(
            tensors.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, true, false]
        );
    }

    #[test]
    fn outputs_are_wanted_as_they_say_or_as_the_request_says() {
        let signature = Signature {
            inputs: Vec::new(),
            outputs: vec![
                spec("scores", DataType::Fp32, &[-1, 3], false),
                spec("names", DataType::Bytes, &[-1], false),
            ],
            opset: 17,
        };
        let plain = |index, binary| Wanted {
            index,
            binary,
            classes: None,
        };
        let none = std::iter::empty::<Result<(&str, OfOutput), String>>();
        let none: Vec<_> = none.collect();
        assert_eq!(
            wanted(&signature, none.into_iter(), true),
            Ok(vec![plain(0, true), plain(1, true)])
        );
        let json = OfOutput {
            binary: Some(false),
            classes: None,
        };
        let named = [Ok(("names", json)), Ok(("scores", OfOutput::default()))];
        assert_eq!(
            wanted(&signature, named.into_iter(), true),
            Ok(vec![plain(1, false), plain(0, true)])
        );
        let classes = OfOutput {
            binary: None,
            classes: Some(2),
        };
        for (named, part) in [
            (vec![Ok(("other", json))], "no output \"other\""),
            (vec![Ok(("names", classes))], "only numbers can be ranked"),
            (vec![Err("as it is".to_owned())], "as it is"),
        ] {
            let sentence = wanted(&signature, named.into_iter(), true).unwrap_err();
            assert!(sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn classes_are_ranked_by_row_of_a_batch_and_else_all_together() {
        let scores = [0.5_f32, 1.5, 2.5, 9.5, 8.5, 7.5];
        let view = View::Fp32(&scores);
        let (shape, classes) = rank(view, &[2, 3], true, 1, &[]);
        assert_eq!(
            (shape, classes),
            (vec![2, 1], vec!["2.500000:2".into(), "9.500000:0".into()])
        );
        let (shape, classes) = rank(view, &[2, 3], false, 2, &[]);
        assert_eq!(
            (shape, classes),
            (vec![2], vec!["9.500000:3".into(), "8.500000:4".into()])
        );
        let (shape, classes) = rank(View::Fp32(&[]), &[0, 3], true, 2, &[]);
        assert_eq!((shape, classes), (vec![0, 0], vec![]));
    }
}
