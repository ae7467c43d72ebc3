//! From a model's outputs to an answer.
//!
//! Inputs: the outcomes of a request's runs and which items each had. Output: JSON; a list for a list,
//! in its order. Invariants: the output that is read was checked when the model was loaded; what a run
//! really gave is checked again.

use std::{borrow::Cow, ops::Range};

use ortolan_model::{Classification, Embedding};
use serde::Serialize;

use super::{
    PipelineError,
    classify::{self, Class},
    embed::{self, Recipe},
};
use crate::{
    dtype::DataType,
    infer::Outcome,
    json::write::{self, Layout},
    output::Output,
    signature::{Signature, TensorSpec, show_names, show_shape},
    tensor::View,
};

/// What is made of the outputs.
pub enum Writer {
    /// The best classes.
    Classification {
        /// Which output has the scores.
        tensor: usize,
        /// How they become classes.
        wanted: Classification,
    },
    /// Vectors.
    Embedding {
        /// Which output has them.
        tensor: usize,
        /// How they become one.
        recipe: Recipe,
    },
    /// Tensors.
    Raw {
        /// Which outputs, and their names.
        tensors: Vec<(usize, String)>,
    },
}

/// What an answer says besides.
pub struct About<'a> {
    /// The model's name.
    pub model: &'a str,
    /// Its version.
    pub version: &'a str,
    /// How many items the request had.
    pub count: usize,
    /// Whether they were a list.
    pub is_list: bool,
    /// How many classes the client asked for.
    pub top_k: Option<usize>,
    /// How many tokens the texts had.
    pub tokens: Option<usize>,
}

/// One run: its outcome, and which of the request's items were in it.
pub struct Part {
    /// What it gave.
    pub outcome: Outcome,
    /// In the order of its rows.
    pub items: Vec<usize>,
    /// Where the tokens of each lie.
    pub spans: Vec<Range<usize>>,
}

#[derive(Serialize)]
struct Predictions<'a, T: Serialize> {
    model: &'a str,
    version: &'a str,
    predictions: T,
}

#[derive(Serialize)]
struct Vectors<'a> {
    model: &'a str,
    version: &'a str,
    embeddings: Vec<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<usize>,
}

impl Writer {
    /// Scores become classes.
    pub fn classification(wanted: &Classification, signature: &Signature) -> Result<Self, String> {
        let tensor = floats_of("classification", wanted.tensor.as_deref(), signature)?;
        let spec = &signature.outputs[tensor];
        let classes = spec.shape.last().copied().unwrap_or(1);
        let labels = wanted.labels.len();
        if labels > 0 && classes > 0 && classes != labels as i64 {
            return Err(format!(
                "the labels file has {labels} lines, and the output {:?} has {classes} classes",
                spec.name
            ));
        }
        Ok(Self::Classification {
            tensor,
            wanted: wanted.clone(),
        })
    }

    /// Outputs become vectors.
    pub fn embedding(wanted: &Embedding, signature: &Signature) -> Result<Self, String> {
        let tensor = floats_of("embedding", wanted.tensor.as_deref(), signature)?;
        let spec = &signature.outputs[tensor];
        let fits = match spec.shape.len() {
            2 => wanted.pooling.is_none(),
            // A graph may leave its output's shape unsaid; each run is checked.
            0 | 3 => true,
            _ => false,
        };
        if !fits {
            return Err(format!(
                "an embedding needs an output [items, width] without pooling, or [items, tokens, width], and {:?} has {}",
                spec.name,
                show_shape(&spec.shape)
            ));
        }
        Ok(Self::Embedding {
            tensor,
            recipe: Recipe {
                pooling: wanted.pooling,
                normalize: wanted.normalize,
            },
        })
    }

    /// Outputs as they are; no names: all.
    pub fn raw(names: &[String], signature: &Signature) -> Result<Self, String> {
        let place = |name: &String| match signature.output_index(name) {
            Some(index) => Ok((index, name.clone())),
            None => Err(no_output(name, signature)),
        };
        let outputs = signature.outputs.iter().map(|output| &output.name);
        let tensors = if names.is_empty() {
            outputs.map(place).collect::<Result<_, _>>()?
        } else {
            names.iter().map(place).collect::<Result<_, _>>()?
        };
        Ok(Self::Raw { tensors })
    }

    /// The outputs that a run is asked for, in this order.
    #[must_use]
    pub fn wanted(&self) -> Vec<usize> {
        match self {
            Self::Classification { tensor, .. } | Self::Embedding { tensor, .. } => vec![*tensor],
            Self::Raw { tensors } => tensors.iter().map(|(index, _)| *index).collect(),
        }
    }

    /// The names of the classes, where it knows them.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Classification { wanted, .. } => &wanted.labels,
            Self::Embedding { .. } | Self::Raw { .. } => &[],
        }
    }

    /// Whether the answer to several items can be put together from several runs.
    #[must_use]
    pub const fn takes_parts(&self) -> bool {
        !matches!(self, Self::Raw { .. })
    }

    /// The answer.
    pub fn write(&self, about: &About<'_>, parts: &[Part]) -> Result<Vec<u8>, PipelineError> {
        match self {
            Self::Classification { wanted, .. } => classes(wanted, about, parts),
            Self::Embedding { recipe, .. } => json(&Vectors {
                model: about.model,
                version: about.version,
                embeddings: vectors(*recipe, about.count, parts)?,
                tokens: about.tokens,
            }),
            Self::Raw { tensors } => raw(tensors, about, parts),
        }
    }
}

/// The vectors of all items, in their order.
pub fn vectors(
    recipe: Recipe,
    count: usize,
    parts: &[Part],
) -> Result<Vec<Vec<f32>>, PipelineError> {
    let mut all = vec![Vec::new(); count];
    for part in parts {
        let output = first(part)?;
        let values = floats(output)?;
        let vectors = embed::vectors(&values, output.shape(), &part.spans, recipe)
            .map_err(PipelineError::Output)?;
        if vectors.len() != part.items.len() {
            return Err(rows_differ(output, part));
        }
        for (item, vector) in part.items.iter().zip(vectors) {
            all[*item] = vector;
        }
    }
    Ok(all)
}

fn classes(
    wanted: &Classification,
    about: &About<'_>,
    parts: &[Part],
) -> Result<Vec<u8>, PipelineError> {
    let top_k = about.top_k.unwrap_or(wanted.top_k);
    let mut all: Vec<Vec<Class<'_>>> = vec![Vec::new(); about.count];
    for part in parts {
        let output = first(part)?;
        let scores = floats(output)?;
        let width = scores.len() / part.items.len().max(1);
        if width == 0 || width * part.items.len() != scores.len() {
            return Err(rows_differ(output, part));
        }
        for (item, row) in part.items.iter().zip(scores.chunks_exact(width)) {
            let ranked = classify::rank(row, wanted, top_k);
            all[*item] = ranked.map_err(|words| PipelineError::Output(words.to_owned()))?;
        }
    }
    let (model, version) = (about.model, about.version);
    if about.is_list {
        return json(&Predictions {
            model,
            version,
            predictions: all,
        });
    }
    json(&Predictions {
        model,
        version,
        predictions: all.into_iter().next().unwrap_or_default(),
    })
}

/// As the Open Inference Protocol writes outputs.
fn raw(
    tensors: &[(usize, String)],
    about: &About<'_>,
    parts: &[Part],
) -> Result<Vec<u8>, PipelineError> {
    let mut out = b"{\"model_name\":".to_vec();
    write::string(&mut out, about.model);
    out.extend_from_slice(b",\"model_version\":");
    write::string(&mut out, about.version);
    out.extend_from_slice(b",\"outputs\":[");
    let outputs = parts.iter().flat_map(|part| &part.outcome.outputs);
    for (number, ((_, name), output)) in tensors.iter().zip(outputs).enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        write::string(&mut out, name);
        let datatype = output.datatype().as_str();
        let shape = show_shape(output.shape());
        let head = format!(",\"datatype\":\"{datatype}\",\"shape\":{shape},\"data\":");
        out.extend_from_slice(head.as_bytes());
        let elements = output.elements().map_err(unreadable)?;
        write::elements(&mut out, elements, output.shape(), Layout::Flat);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn json(answer: &impl Serialize) -> Result<Vec<u8>, PipelineError> {
    serde_json::to_vec(answer).map_err(|error| PipelineError::Output(error.to_string()))
}

fn first(part: &Part) -> Result<&Output, PipelineError> {
    let outputs = &part.outcome.outputs;
    outputs
        .first()
        .ok_or_else(|| PipelineError::Output("the run gave no output".to_owned()))
}

fn unreadable(error: impl std::fmt::Display) -> PipelineError {
    PipelineError::Output(error.to_string())
}

fn rows_differ(output: &Output, part: &Part) -> PipelineError {
    PipelineError::Output(format!(
        "the model's output has the shape {} for {} items; the first dimension must count them",
        show_shape(output.shape()),
        part.items.len()
    ))
}

/// The elements of an output of floats.
fn floats(output: &Output) -> Result<Cow<'_, [f32]>, PipelineError> {
    Ok(match output.elements().map_err(unreadable)? {
        View::Fp32(values) => Cow::Borrowed(values),
        View::Fp64(values) => values.iter().map(|value| *value as f32).collect(),
        View::Fp16(values) => values.iter().map(|value| value.to_f32()).collect(),
        View::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
        _ => {
            return Err(PipelineError::Output(format!(
                "the model's output is {}, floats were expected",
                output.datatype()
            )));
        }
    })
}

/// The output of that name, else the first one of floats.
fn floats_of(what: &str, name: Option<&str>, signature: &Signature) -> Result<usize, String> {
    let is_float = |spec: &TensorSpec| {
        use DataType::{Bf16, Fp16, Fp32, Fp64};
        matches!(spec.datatype, Fp32 | Fp64 | Fp16 | Bf16)
    };
    let Some(name) = name else {
        return signature
            .outputs
            .iter()
            .position(is_float)
            .ok_or_else(|| format!("{what} reads an output of floats, and the model has none"));
    };
    let index = signature
        .output_index(name)
        .ok_or_else(|| no_output(name, signature))?;
    let spec = &signature.outputs[index];
    if !is_float(spec) {
        return Err(format!(
            "{what} reads an output of floats, and {name:?} is {}",
            spec.datatype
        ));
    }
    Ok(index)
}

fn no_output(name: &str, signature: &Signature) -> String {
    let names = signature.outputs.iter().map(|output| output.name.as_str());
    format!(
        "there is no output {name:?}; the model's outputs are {}",
        show_names(names)
    )
}
