//! The tensors that tools run models with: random ones of chosen shapes, or those of V2 requests in a file.
//!
//! Random means: floats from -1 to 1, UINT8 from 0 to 255, other whole numbers 0 or 1 (they are usually ids, masks or
//! segments, and larger ones may point outside a table), texts `"a"`. The generator starts from a fixed seed, so that
//! two runs see the same tensors.

use std::{borrow::Cow, collections::BTreeMap, fs, path::PathBuf, str::FromStr};

use fastrand::Rng;
use half::{bf16, f16};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Refusal;
use crate::{
    dtype::DataType,
    infer::Request,
    json::data,
    signature::{Signature, TensorSpec, show_names, show_shape},
    tensor::{Elements, Tensor, element_count},
};

/// Which tensors to use.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct InputOptions {
    /// The shape of an input, as NAME=1,128; may be given once for each input. Without it every
    /// free dimension is 1.
    #[arg(long = "shape", value_name = "NAME=DIMS")]
    pub shapes: Vec<NamedShape>,

    /// Requests to take the tensors from: a file with one V2 inference request as JSON in each line.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "shapes")]
    pub data: Option<PathBuf>,
}

/// `NAME=1,128`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedShape {
    /// An input.
    pub name: String,
    /// Every dimension.
    pub shape: Vec<i64>,
}

impl FromStr for NamedShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no shape: write NAME=1,128 (and NAME= for a scalar)");
        let (name, dims) = text.rsplit_once('=').ok_or_else(wrong)?;
        let dims = dims.trim_matches(['[', ']']);
        let shape: Option<Vec<i64>> = match dims {
            "" => Some(Vec::new()),
            _ => dims
                .split(',')
                .map(|dim| dim.trim().parse().ok().filter(|dim| *dim >= 0))
                .collect(),
        };
        match shape {
            Some(shape) if !name.is_empty() && element_count(&shape).is_some() => Ok(Self {
                name: name.to_owned(),
                shape,
            }),
            _ => Err(wrong()),
        }
    }
}

/// A tensor with its input's name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// An input.
    pub name: String,
    /// Of what.
    pub datatype: DataType,
    /// Its value.
    pub tensor: Tensor,
}

/// One request's tensors.
pub type Feed = Vec<NamedTensor>;

/// A request's tensors in the model's order; `None` where an optional input is left out.
pub type Inputs = Vec<Option<Tensor>>;

/// What an input wants: its name, datatype and dimensions, -1 where any size will do.
pub type Wanted<'a> = (&'a str, DataType, &'a [i64]);

/// What a signature wants; inputs that may be left out are left out.
pub fn wanted(signature: &Signature) -> impl Iterator<Item = Wanted<'_>> {
    signature
        .required()
        .map(|spec| (spec.name.as_str(), spec.datatype, spec.shape.as_slice()))
}

/// Shapes for all inputs: those that were chosen, else the model's own with 1 for every free dimension.
pub fn shapes<'a>(
    chosen: &[NamedShape],
    wanted: impl Iterator<Item = Wanted<'a>>,
) -> Result<Vec<(String, DataType, Vec<i64>)>, Refusal> {
    let mut chosen: BTreeMap<&str, &[i64]> = chosen
        .iter()
        .map(|named| (named.name.as_str(), named.shape.as_slice()))
        .collect();
    let mut names = Vec::new();
    let mut shapes = Vec::new();
    for (name, datatype, dims) in wanted {
        names.push(name);
        let shape = match chosen.remove(name) {
            Some(shape) => {
                let spec = TensorSpec {
                    name: name.to_owned(),
                    datatype,
                    shape: dims.to_vec(),
                    optional: false,
                };
                spec.accepts(shape)
                    .map_err(|sentence| Refusal::Data(format!("--shape: {sentence}")))?;
                shape.to_vec()
            }
            None => dims.iter().map(|dim| (*dim).max(-1).abs()).collect(),
        };
        shapes.push((name.to_owned(), datatype, shape));
    }
    match chosen.keys().next() {
        None => Ok(shapes),
        Some(name) => Err(Refusal::Data(format!(
            "--shape: there is no input {name:?}; the model's inputs are {}",
            show_names(names.into_iter())
        ))),
    }
}

/// Random tensors of these shapes.
#[must_use]
pub fn random(shapes: &[(String, DataType, Vec<i64>)], rng: &mut Rng) -> Feed {
    let tensor = |(name, datatype, shape): &(String, DataType, Vec<i64>)| NamedTensor {
        name: name.clone(),
        datatype: *datatype,
        tensor: random_tensor(*datatype, shape.clone(), rng),
    };
    shapes.iter().map(tensor).collect()
}

fn random_tensor(datatype: DataType, shape: Vec<i64>, rng: &mut Rng) -> Tensor {
    let count = element_count(&shape).unwrap_or(0);
    let mut float = || rng.f32().mul_add(2.0, -1.0);
    let elements = match datatype {
        DataType::Fp32 => Elements::Fp32((0..count).map(|_| float()).collect()),
        DataType::Fp64 => Elements::Fp64((0..count).map(|_| f64::from(float())).collect()),
        DataType::Fp16 => Elements::Fp16((0..count).map(|_| f16::from_f32(float())).collect()),
        DataType::Bf16 => Elements::Bf16((0..count).map(|_| bf16::from_f32(float())).collect()),
        DataType::Bool => Elements::Bool((0..count).map(|_| rng.bool()).collect()),
        DataType::Uint8 => Elements::Uint8((0..count).map(|_| rng.u8(..)).collect()),
        DataType::Uint16 => Elements::Uint16((0..count).map(|_| rng.u16(..2)).collect()),
        DataType::Uint32 => Elements::Uint32((0..count).map(|_| rng.u32(..2)).collect()),
        DataType::Uint64 => Elements::Uint64((0..count).map(|_| rng.u64(..2)).collect()),
        DataType::Int8 => Elements::Int8((0..count).map(|_| rng.i8(0..2)).collect()),
        DataType::Int16 => Elements::Int16((0..count).map(|_| rng.i16(0..2)).collect()),
        DataType::Int32 => Elements::Int32((0..count).map(|_| rng.i32(0..2)).collect()),
        DataType::Int64 => Elements::Int64((0..count).map(|_| rng.i64(0..2)).collect()),
        DataType::Bytes => Elements::Bytes(vec!["a".to_owned(); count]),
    };
    Tensor { shape, elements }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Vec<i64>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The requests of a file, one in each line that is not empty.
pub fn read(path: &std::path::Path) -> Result<Vec<Feed>, Refusal> {
    let text = fs::read_to_string(path).map_err(|error| {
        Refusal::Data(format!("--data {} cannot be read: {error}", path.display()))
    })?;
    let lines = text.lines().enumerate();
    let feeds: Result<Vec<Feed>, Refusal> = lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            read_line(line).map_err(|sentence| {
                Refusal::Data(format!(
                    "--data {} line {}: {sentence}",
                    path.display(),
                    number + 1
                ))
            })
        })
        .collect();
    let feeds = feeds?;
    if feeds.is_empty() {
        return Err(Refusal::Data(format!(
            "--data {} holds no request; write one V2 inference request as JSON in each line",
            path.display()
        )));
    }
    Ok(feeds)
}

fn read_line(line: &str) -> Result<Feed, String> {
    let request: Line<'_> = serde_json::from_str(line)
        .map_err(|error| format!("it is no V2 inference request: {error}"))?;
    request.inputs.iter().map(read_input).collect()
}

fn read_input(input: &Input<'_>) -> Result<NamedTensor, String> {
    let name = &input.name;
    let datatype = DataType::from_name(&input.datatype).ok_or_else(|| {
        format!(
            "input {name:?} has the unknown datatype {:?}",
            input.datatype
        )
    })?;
    let mut elements = Elements::with_capacity(datatype, 0);
    data::read(input.data.get(), datatype, &mut elements)
        .map_err(|error| format!("input {name:?}: {error}"))?;
    if element_count(&input.shape) != Some(elements.len()) {
        return Err(format!(
            "input {name:?} has {} elements, which do not make the shape {}",
            elements.len(),
            show_shape(&input.shape)
        ));
    }
    Ok(NamedTensor {
        name: name.clone().into_owned(),
        datatype,
        tensor: Tensor {
            shape: input.shape.clone(),
            elements,
        },
    })
}

/// The feed's tensors in the model's order, or a sentence that says what does not fit.
pub fn fit(feed: Feed, signature: &Signature) -> Result<Inputs, Refusal> {
    let mut inputs: Inputs = signature.inputs.iter().map(|_| None).collect();
    for named in feed {
        let Some(at) = signature.input_index(&named.name) else {
            let names = show_names(signature.inputs.iter().map(|spec| spec.name.as_str()));
            return Err(Refusal::Data(format!(
                "there is no input {:?}; the model's inputs are {names}",
                named.name
            )));
        };
        inputs[at] = Some(named.tensor);
    }
    let request = Request::new(inputs);
    signature.check(&request).map_err(Refusal::Data)?;
    Ok(request.inputs)
}

/// Requests for a model, and where they come from, in words for a report.
pub fn feeds(
    options: &InputOptions,
    signature: &Signature,
    how_many: usize,
) -> Result<(Vec<Inputs>, String), Refusal> {
    if let Some(path) = &options.data {
        let feeds = read(path)?;
        let words = format!("{} request(s) of {}", feeds.len(), path.display());
        let fitted: Result<Vec<_>, _> =
            feeds.into_iter().map(|feed| fit(feed, signature)).collect();
        return Ok((fitted?, words));
    }
    let shapes = shapes(&options.shapes, wanted(signature))?;
    let mut rng = Rng::with_seed(SEED);
    let feeds: Result<Vec<_>, _> = (0..how_many)
        .map(|_| fit(random(&shapes, &mut rng), signature))
        .collect();
    Ok((feeds?, format!("random tensors {}", show(&shapes))))
}

/// Any number will do, as long as it stays.
pub const SEED: u64 = 0x6f72_746f_6c61_6e00;

/// `x FP32 [1,3,224,224], y INT64 [1]`
#[must_use]
pub fn show(shapes: &[(String, DataType, Vec<i64>)]) -> String {
    let shown: Vec<String> = shapes
        .iter()
        .map(|(name, datatype, shape)| format!("{name} {datatype} {}", show_shape(shape)))
        .collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature() -> Signature {
        let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
            optional: false,
        };
        Signature {
            inputs: vec![
                spec("ids", DataType::Int64, &[-1, -1]),
                spec("scale", DataType::Fp32, &[]),
            ],
            outputs: vec![spec("y", DataType::Fp32, &[-1, 4])],
            opset: 17,
        }
    }

    fn shape(inputs: &Inputs, at: usize) -> &[i64] {
        &inputs[at].as_ref().unwrap().shape
    }

    fn options(shapes: &[&str]) -> InputOptions {
        InputOptions {
            shapes: shapes.iter().map(|shape| shape.parse().unwrap()).collect(),
            data: None,
        }
    }

    #[test]
    fn a_shape_is_read_with_its_name() {
        let read = |text: &str| text.parse::<NamedShape>().map(|named| named.shape);
        assert_eq!(read("ids=1,128"), Ok(vec![1, 128]));
        assert_eq!(read("ids=[2, 3]"), Ok(vec![2, 3]));
        assert_eq!(read("scale="), Ok(vec![]));
        for text in [
            "ids",
            "=1",
            "ids=a",
            "ids=1,-1",
            "ids=1,,2",
            "x=9223372036854775807,9",
        ] {
            assert!(read(text).unwrap_err().contains("NAME=1,128"), "{text}");
        }
    }

    #[test]
    fn free_dimensions_are_one_unless_a_shape_is_chosen() {
        let (feeds, words) = feeds(&options(&["ids=2,7"]), &signature(), 3).unwrap();
        assert_eq!(feeds.len(), 3);
        assert_eq!(shape(&feeds[0], 0), [2, 7]);
        assert_eq!(shape(&feeds[0], 1), [0_i64; 0]);
        assert_ne!(feeds[0], feeds[1], "each request is another one");
        assert!(words.contains("ids INT64 [2,7]"), "{words}");
        let (feeds, _) = super::feeds(&options(&[]), &signature(), 1).unwrap();
        assert_eq!(shape(&feeds[0], 0), [1, 1]);
    }

    #[test]
    fn a_shape_that_does_not_fit_is_refused_with_what_would() {
        for (shape, words) in [
            ("ids=3", "expected [-1,-1]"),
            ("id=1,1", "there is no input \"id\""),
        ] {
            let refusal = feeds(&options(&[shape]), &signature(), 1).unwrap_err();
            assert!(refusal.to_string().contains(words), "{refusal}");
            assert_eq!(refusal.exit_code(), 40);
        }
    }

    #[test]
    fn requests_are_read_line_by_line_and_a_wrong_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.jsonl");
        let good = r#"{"inputs":[{"name":"scale","datatype":"FP32","shape":[],"data":[0.5]},{"name":"ids","datatype":"INT64","shape":[1,2],"data":[[3,4]]}]}"#;
        fs::write(&path, format!("{good}\n\n{good}\n")).unwrap();
        let read_all = |path: &PathBuf| {
            let options = InputOptions {
                data: Some(path.clone()),
                ..InputOptions::default()
            };
            feeds(&options, &signature(), 9)
        };
        let (feeds, _) = read_all(&path).unwrap();
        assert_eq!(feeds.len(), 2);
        let ids = feeds[0][0].as_ref().unwrap();
        assert_eq!(ids.elements, Elements::Int64(vec![3, 4]));
        for (line, words) in [
            ("", "holds no request"),
            ("[]", "no V2 inference request"),
            (
                &good.replace("[1,2]", "[1,3]"),
                "do not make the shape [1,3]",
            ),
            (&good.replace("INT64", "INT"), "unknown datatype \"INT\""),
            (&good.replace("INT64", "INT32"), "expected INT64"),
            (&good.replace("scale", "s"), "there is no input \"s\""),
            (&good.replace("[3,4]", "[3,4.5]"), "element 1 is 4.5"),
        ] {
            fs::write(&path, line).unwrap();
            let refusal = read_all(&path).unwrap_err().to_string();
            assert!(refusal.contains(words), "{refusal}");
        }
        assert!(
            read_all(&dir.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("cannot be read")
        );
    }

    #[test]
    fn random_tensors_fill_their_shape_in_every_datatype() {
        let mut rng = Rng::with_seed(1);
        for datatype in DataType::ALL {
            let tensor = random_tensor(datatype, vec![5, 4], &mut rng);
            assert_eq!(tensor.elements.len(), 20, "{datatype}");
        }
        let Elements::Fp32(floats) = random_tensor(DataType::Fp32, vec![1000], &mut rng).elements
        else {
            panic!("FP32 is made as FP32");
        };
        assert!(floats.iter().all(|float| float.abs() <= 1.0));
        assert!(
            floats.iter().any(|float| *float < -0.5) && floats.iter().any(|float| *float > 0.5)
        );
    }
}
