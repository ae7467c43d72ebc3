//! `model.yaml`: how a request becomes the model's tensors and how its outputs become an answer.
//!
//! Strict: an unknown field, a value out of range or a missing label file is a
//! [`Reason::InvalidConfig`] with a sentence that says where and what is known. An absent file is
//! an empty configuration: the model is then served with tensors only.
//!
//! Invariants of a [`ModelConfig`] made by [`parse`]: width and height are 1..=8192, `mean` and
//! `std` have three finite entries, no entry of `std` is zero, `top_k` is at least 1, and labels
//! are trimmed and not empty.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::{
    disk,
    failure::{Failure, Reason},
    settings::Batching,
    tree,
};

mod batching;

/// The file's name, beside the model.
pub const FILE: &str = "model.yaml";

/// More than any configuration needs; less than what would hurt to read.
pub(crate) const MAX_CONFIG_BYTES: u64 = 1024 * 1024;
const MAX_LABELS_BYTES: u64 = 16 * 1024 * 1024;
const MAX_SIDE: u32 = 8192;
const DEFAULT_TOP_K: usize = 5;

/// What `model.yaml` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelConfig {
    /// How raw requests (`POST /predict/{model}`) are turned into tensors and back. `None`: the
    /// model takes tensors only.
    pub pipeline: Option<Pipeline>,
    /// How requests are put together.
    pub batching: Batching,
}

/// From a request's bytes to an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// What is done before the model runs.
    pub input: Input,
    /// What is done with its output.
    pub output: Output,
}

/// What a request's bytes are.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A JPEG, PNG or WebP image.
    Image(ImageInput),
}

/// From an image to one float tensor of shape [1, 3, height, width] or [1, height, width, 3].
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInput {
    /// Pixels, as the model wants them.
    pub width: u32,
    /// Pixels, as the model wants them.
    pub height: u32,
    /// How an image of another size is brought to width × height.
    pub resize: Resize,
    /// The order of the colours.
    pub channels: Channels,
    /// The order of the axes.
    pub layout: Layout,
    /// Three values in the order of `channels`, in units of a pixel (0..=255):
    /// a value of the tensor is `(pixel - mean) / std`.
    pub mean: Vec<f32>,
    /// Three values, none of them zero; see `mean`.
    pub std: Vec<f32>,
}

/// How an image is brought to the model's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Keep the proportions; fill the rest with the mean colour.
    Fit,
    /// Keep the proportions; scale until the image covers the size, cut the middle out.
    #[default]
    Crop,
    /// Ignore the proportions.
    Stretch,
}

/// The order of the colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Channels {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
}

/// The order of the axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Layout {
    /// Batch, channels, height, width.
    #[default]
    Nchw,
    /// Batch, height, width, channels.
    Nhwc,
}

/// What the model's first output is.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// One score for each class.
    Classification {
        /// The classes' names in the order of the scores. Empty: classes are shown by number.
        labels: Vec<String>,
        /// The model's output is logits: apply softmax.
        softmax: bool,
        /// How many of the best classes an answer names.
        top_k: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    pipeline: Option<RawPipeline>,
    batching: Option<batching::RawBatching>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPipeline {
    input: RawInput,
    output: RawOutput,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum InputKind {
    Image,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OutputKind {
    Classification,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInput {
    kind: InputKind,
    width: u32,
    height: u32,
    #[serde(default)]
    resize: Resize,
    #[serde(default)]
    channels: Channels,
    #[serde(default)]
    layout: Layout,
    #[serde(default)]
    mean: Vec<f32>,
    #[serde(default)]
    std: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawOutput {
    kind: OutputKind,
    labels: Option<String>,
    #[serde(default)]
    softmax: bool,
    top_k: Option<usize>,
}

/// Reads `model.yaml` and the labels it names; a labels path starts from the folder that `model.yaml` lies in. Neither may lead out of `root`. Blocking.
pub(crate) fn load(file: &Path, root: Option<&Path>) -> Result<ModelConfig, Failure> {
    let root = canonical(root)?;
    tree::confined(file, root.as_deref())?;
    let text = read_text(file, MAX_CONFIG_BYTES, FILE)?;
    let base = file.parent().unwrap_or(Path::new("."));
    parse(&text, |labels| read_labels(base, labels, root.as_deref()))
}

/// Checks the text of a `model.yaml`; `labels` reads the file that it names.
pub(crate) fn parse(
    text: &str,
    labels: impl FnOnce(&str) -> Result<Vec<String>, Failure>,
) -> Result<ModelConfig, Failure> {
    let blank = text
        .lines()
        .all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'));
    if blank {
        return Ok(ModelConfig::default());
    }
    let raw: RawConfig = serde_saphyr::from_str(text).map_err(|e| {
        // The first line is the sentence, the others show the place, which it names.
        let text = e.to_string();
        let first = text.lines().next().unwrap_or_default();
        wrong(first.strip_prefix("error: ").unwrap_or(first))
    })?;
    let batching = raw.batching.map(batching::check).transpose();
    let batching = batching.map_err(|sentence| wrong(&sentence))?;
    let pipeline = match raw.pipeline {
        Some(raw) => Some(Pipeline {
            input: check_input(raw.input)?,
            output: check_output(raw.output, labels)?,
        }),
        None => None,
    };
    Ok(ModelConfig {
        pipeline,
        batching: batching.unwrap_or_default(),
    })
}

/// The labels that another file than `model.yaml` names, in the folder `base`.
pub(crate) fn labels_beside(
    base: &Path,
    name: &str,
    named_by: &str,
    root: Option<&Path>,
) -> Result<Vec<String>, Failure> {
    let root = canonical(root)?;
    let path = base.join(name);
    let text = read_text(&path, MAX_LABELS_BYTES, named_by)?;
    tree::confined(&path, root.as_deref())?;
    parse_labels(name, &text)
}

fn canonical(root: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let real = root.map(|root| {
        root.canonicalize()
            .map_err(|e| disk::failure("read", root, &e))
    });
    real.transpose()
}

fn check_input(raw: RawInput) -> Result<Input, Failure> {
    let InputKind::Image = raw.kind;
    for (name, side) in [("width", raw.width), ("height", raw.height)] {
        if !(1..=MAX_SIDE).contains(&side) {
            return Err(wrong(&format!(
                "pipeline.input.{name} is {side}; write the pixels that the model takes, 1 to {MAX_SIDE}"
            )));
        }
    }
    let mean = channels_of("mean", raw.mean, 0.0)?;
    let std = channels_of("std", raw.std, 1.0)?;
    if std.contains(&0.0) {
        return Err(wrong(
            "pipeline.input.std holds a 0; a tensor value is (pixel - mean) / std, so write the \
             divisor, for example [255, 255, 255]",
        ));
    }
    Ok(Input::Image(ImageInput {
        width: raw.width,
        height: raw.height,
        resize: raw.resize,
        channels: raw.channels,
        layout: raw.layout,
        mean,
        std,
    }))
}

/// Three values; one stands for all three, none for `default`.
fn channels_of(name: &str, values: Vec<f32>, default: f32) -> Result<Vec<f32>, Failure> {
    if values.iter().any(|v| !v.is_finite()) {
        return Err(wrong(&format!(
            "pipeline.input.{name} holds a value that is no finite number"
        )));
    }
    match values[..] {
        [] => Ok(vec![default; 3]),
        [v] => Ok(vec![v; 3]),
        [_, _, _] => Ok(values),
        _ => Err(wrong(&format!(
            "pipeline.input.{name} has {} values; write one for each colour, for example \
             [127, 127, 127], in units of a pixel (0 to 255)",
            values.len()
        ))),
    }
}

fn check_output(
    raw: RawOutput,
    labels: impl FnOnce(&str) -> Result<Vec<String>, Failure>,
) -> Result<Output, Failure> {
    let OutputKind::Classification = raw.kind;
    let top_k = raw.top_k.unwrap_or(DEFAULT_TOP_K);
    if top_k == 0 {
        return Err(wrong(
            "pipeline.output.topK is 0; write how many classes to answer, 1 or more",
        ));
    }
    let labels = raw.labels.map_or(Ok(Vec::new()), |name| labels(&name))?;
    Ok(Output::Classification {
        labels,
        softmax: raw.softmax,
        top_k,
    })
}

fn read_labels(base: &Path, name: &str, root: Option<&Path>) -> Result<Vec<String>, Failure> {
    let plain = !name.is_empty()
        && Path::new(name)
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(wrong(&format!(
            "pipeline.output.labels is {name:?}; write the name of a file beside {FILE}, for \
             example labels.txt"
        )));
    }
    let path = base.join(name);
    let text = read_text(&path, MAX_LABELS_BYTES, FILE)?;
    tree::confined(&path, root)?;
    parse_labels(name, &text)
}

/// One label a line; empty lines at the end do not count.
fn parse_labels(name: &str, text: &str) -> Result<Vec<String>, Failure> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    let labels: Vec<String> = text.lines().map(|l| l.trim().to_owned()).collect();
    if labels.is_empty() {
        return Err(wrong(&format!(
            "the labels file {name} is empty; write one label a line"
        )));
    }
    if let Some(line) = labels.iter().position(String::is_empty) {
        return Err(wrong(&format!(
            "line {} of the labels file {name} is empty; write one label a line, in the order of \
             the model's outputs",
            line + 1
        )));
    }
    Ok(labels)
}

/// The text of a small file that the file `named_by` names.
pub(crate) fn read_text(path: &Path, limit: u64, named_by: &str) -> Result<String, Failure> {
    let shown = path.display();
    let unreadable = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => wrong(&format!(
            "{shown} does not exist, although {named_by} names it"
        )),
        _ => wrong(&format!("{shown} cannot be read: {e}")),
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > limit {
        return Err(wrong(&format!(
            "{shown} has {size} bytes; at most {limit} are read"
        )));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| wrong(&format!("{shown} is not UTF-8 text")))
}

fn wrong(sentence: &str) -> Failure {
    if sentence.contains(FILE) || sentence.contains("labels file") {
        return Failure::new(Reason::InvalidConfig, sentence);
    }
    Failure::new(Reason::InvalidConfig, format!("{FILE}: {sentence}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
