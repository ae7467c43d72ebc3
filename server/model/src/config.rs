//! `model.yaml`: how a request becomes the model's tensors and how its outputs become an answer.
//!
//! Strict: an unknown field, a value out of range or a missing label file is a
//! [`Reason::InvalidConfig`] with a sentence that says where and what is known. An absent file is
//! an empty configuration: the model is then served with tensors only. A second one, the user's own
//! (`--model-config`, `--model-config-inline`), replaces the sections that it has; the files that either names lie in the
//! package.
//!
//! Invariants of a [`ModelConfig`] made here: sizes are within their documented ranges, `mean` and
//! `std` have three finite entries, no entry of `std` is zero, `top_k` is at least 1, labels are
//! trimmed and not empty, and a tokenizer's file exists inside the package.

use std::path::{Component, Path, PathBuf};

use crate::{
    disk,
    failure::{Failure, Reason},
    settings::Batching,
    tree,
};

mod batching;
mod check;
mod raw;

pub use raw::{Channels, Layout, Overflow, Pooling, Resize};

/// The file's name, beside the model.
pub const FILE: &str = "model.yaml";

/// More than any configuration needs; less than what would hurt to read.
pub(crate) const MAX_CONFIG_BYTES: u64 = 1024 * 1024;
const MAX_LABELS_BYTES: u64 = 16 * 1024 * 1024;

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
    /// Texts, through a tokenizer.
    Text(TextInput),
    /// Any bytes: what stands at their beginning, in the middle and at the end.
    Bytes(BytesInput),
    /// Rows of numbers and strings, as JSON or CSV.
    Rows(RowsInput),
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
    /// With [`Resize::Crop`]: the pixels that the image's shorter side is brought to before the middle is
    /// cut out, not less than the larger of width and height. `None`: as few as cover the size.
    pub short_side: Option<u32>,
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

/// From texts to whole numbers of shape [texts, tokens]: ids, and where the model takes them a mask
/// and token types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextInput {
    /// A `tokenizer.json` of Hugging Face's `tokenizers`, on disk.
    pub tokenizer: PathBuf,
    /// The most tokens of one text, special ones included. `None`: what the tokenizer's own file says.
    pub max_tokens: Option<usize>,
    /// What is done with a text of more.
    pub overflow: Overflow,
    /// The most tokens, padding included, that go into one run of the model; more texts are several
    /// runs.
    pub max_run_tokens: usize,
    /// The input for the tokens' numbers.
    pub ids: String,
    /// The input that is 1 for a token and 0 for padding.
    pub mask: String,
    /// The input for the tokens' types: 0 in a single text.
    pub types: String,
}

/// From bytes to `head + middle + tail` whole numbers, of shape [1, head + middle + tail].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BytesInput {
    /// Bytes taken from the beginning.
    pub head: usize,
    /// Bytes taken around the middle.
    pub middle: usize,
    /// Bytes taken from the end.
    pub tail: usize,
    /// Only so many bytes from each end are looked at.
    pub block: usize,
    /// The number that stands where there are no bytes.
    pub padding: i32,
    /// White space at the outer ends does not count.
    pub strip: bool,
}

/// From rows to tensors of shape [rows, columns].
#[derive(Clone, Debug, PartialEq)]
pub struct RowsInput {
    /// In the order in which the model takes them. Empty: the names of the model's inputs, where
    /// each takes one column; else the columns have no names.
    pub columns: Vec<Column>,
    /// What stands for a missing value in a column that does not say.
    pub missing: Option<Missing>,
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// As requests write it.
    pub name: String,
    /// What stands for a missing value. `None`: what [`RowsInput`] says.
    pub missing: Option<Missing>,
}

/// What the model takes where a value is missing.
#[derive(Clone, Debug, PartialEq)]
pub enum Missing {
    /// NaN among them.
    Number(f64),
    /// In a column of strings.
    Text(String),
}

/// What is made of the model's outputs.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// One score for each class.
    Classification(Classification),
    /// A vector for each item of a request.
    Embedding(Embedding),
    /// The tensors as they are.
    Raw {
        /// The outputs to answer. Empty: all.
        tensors: Vec<String>,
    },
}

/// How scores become classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The model's output. `None`: its first one of floats.
    pub tensor: Option<String>,
    /// The classes' names in the order of the scores. Empty: classes are shown by number.
    pub labels: Vec<String>,
    /// How a score becomes a probability.
    pub activation: Activation,
    /// How many of the best classes an answer names.
    pub top_k: usize,
    /// The least probability that an answer names.
    pub threshold: Option<f32>,
}

/// How a score becomes a probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// It is one.
    None,
    /// Logits of classes of which one holds.
    Softmax,
    /// Logits of classes of which each holds or not.
    Sigmoid,
}

/// How an output becomes one vector for each item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// The model's output. `None`: its first one of floats.
    pub tensor: Option<String>,
    /// How the vectors of the tokens become one. `None`: `mean` where the output has an axis of
    /// tokens, else nothing is to be done.
    pub pooling: Option<Pooling>,
    /// Scale the vector to length 1.
    pub normalize: bool,
}

/// A `model.yaml` of the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnConfig {
    /// In a file, as `--model-config` names it.
    File(PathBuf),
    /// Its text, as `--model-config-inline` has it.
    Inline(String),
}

impl OwnConfig {
    /// As sentences call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Inline(_) => "--model-config-inline".to_owned(),
        }
    }

    fn source(&self) -> Result<Source, Failure> {
        let text = match self {
            Self::File(path) => read_text(path, MAX_CONFIG_BYTES, "--model-config")?,
            Self::Inline(text) => text.clone(),
        };
        Ok(Source {
            name: self.name(),
            text,
        })
    }
}

/// A configuration's text and how sentences name it.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Where the files that a configuration names are searched.
pub(crate) struct Place<'a> {
    /// Relative paths start here.
    pub(crate) base: &'a Path,
    /// No path may lead out of here.
    pub(crate) root: Option<&'a Path>,
}

/// Reads the package's `model.yaml`, if it has one, the user's own, if there is one, and the files that
/// they name. Those lie relative to the `model.yaml`, without one relative to `folder`. None may lead out of `root`. Blocking.
pub(crate) fn load(
    packaged: Option<&Path>,
    own: Option<&OwnConfig>,
    folder: &Path,
    root: Option<&Path>,
) -> Result<ModelConfig, Failure> {
    let root = canonical(root)?;
    let mut sources = Vec::new();
    if let Some(own) = own {
        sources.push(own.source()?);
    }
    if let Some(file) = packaged {
        tree::confined(file, root.as_deref())?;
        sources.push(Source {
            name: FILE.to_owned(),
            text: read_text(file, MAX_CONFIG_BYTES, FILE)?,
        });
    }
    let place = Place {
        base: packaged.and_then(Path::parent).unwrap_or(folder),
        root: root.as_deref(),
    };
    parse(&sources, &place)
}

/// Checks configurations; a section of an earlier one hides that of a later one. Reads the files that
/// they name.
pub(crate) fn parse(sources: &[Source], place: &Place<'_>) -> Result<ModelConfig, Failure> {
    let (mut pipeline, mut batching) = (None, None);
    for source in sources {
        let sections = raw::sections(source)?;
        // Each file is checked whole, whether or not its sections are used.
        if let Some(kinds) = sections.pipeline {
            let raw = raw::pipeline(source, &kinds)?;
            let checked = check::pipeline(source, raw)?;
            pipeline.get_or_insert((source, checked));
        }
        if let Some(raw) = sections.batching {
            let checked = batching::check(raw).map_err(|sentence| source.wrong(&sentence))?;
            batching.get_or_insert(checked);
        }
    }
    let pipeline = match pipeline {
        Some((source, unread)) => Some(unread.read(source, place)?),
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
    parse_labels(named_by, name, &text)
}

fn canonical(root: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let real = root.map(|root| {
        root.canonicalize()
            .map_err(|e| disk::failure("read", root, &e))
    });
    real.transpose()
}

/// The path of a file that a configuration names, which must lie in the package.
fn file_in(
    source: &Source,
    field: &str,
    name: &str,
    example: &str,
    place: &Place<'_>,
) -> Result<PathBuf, Failure> {
    let plain = !name.is_empty()
        && Path::new(name)
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(source.wrong(&format!(
            "{field} is {name:?}; write the name of a file beside {FILE}, for example {example}"
        )));
    }
    let path = place.base.join(name);
    if !path.is_file() {
        return Err(source.wrong(&format!(
            "{} does not exist, although {} names it",
            path.display(),
            source.name
        )));
    }
    tree::confined(&path, place.root)?;
    Ok(path)
}

fn read_labels(source: &Source, name: &str, place: &Place<'_>) -> Result<Vec<String>, Failure> {
    let path = file_in(source, "pipeline.output.labels", name, "labels.txt", place)?;
    let text = read_text(&path, MAX_LABELS_BYTES, &source.name)?;
    parse_labels(&source.name, name, &text)
}

/// One label a line; empty lines at the end do not count.
fn parse_labels(named_by: &str, name: &str, text: &str) -> Result<Vec<String>, Failure> {
    let wrong =
        |sentence: String| Failure::new(Reason::InvalidConfig, format!("{named_by}: {sentence}"));
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    let labels: Vec<String> = text.lines().map(|l| l.trim().to_owned()).collect();
    if labels.is_empty() {
        return Err(wrong(format!(
            "the labels file {name} is empty; write one label a line"
        )));
    }
    if let Some(line) = labels.iter().position(String::is_empty) {
        return Err(wrong(format!(
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
    let failed = |sentence: String| Failure::new(Reason::InvalidConfig, sentence);
    let unreadable = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => failed(format!(
            "{shown} does not exist, although {named_by} names it"
        )),
        _ => failed(format!("{shown} cannot be read: {e}")),
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > limit {
        return Err(failed(format!(
            "{shown} has {size} bytes; at most {limit} are read"
        )));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| failed(format!("{shown} is not UTF-8 text")))
}

impl Source {
    /// A refusal that names this file.
    pub(crate) fn wrong(&self, sentence: &str) -> Failure {
        if sentence.contains(&self.name) {
            return Failure::new(Reason::InvalidConfig, sentence);
        }
        Failure::new(Reason::InvalidConfig, format!("{}: {sentence}", self.name))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
