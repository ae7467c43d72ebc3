//! `model.yaml` as it is written: the fields, their defaults and their documentation, from which
//! `docs/model.schema.json` is made.
//!
//! Each section is read on its own, once its kind is known, so that a refusal names the fields of
//! that kind and the place in the file.

use serde::{Deserialize, de::DeserializeOwned};

use super::{Source, batching::RawBatching};
use crate::failure::Failure;

#[cfg(test)]
use schemars::JsonSchema;

/// The sections of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sections {
    pub(super) pipeline: Option<Kinds>,
    pub(super) batching: Option<RawBatching>,
}

/// What a pipeline's two halves are; the rest is read once this is known.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kinds {
    input: Of<InputKind>,
    output: Of<OutputKind>,
}

#[derive(Deserialize)]
struct Of<K> {
    kind: K,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum InputKind {
    Image,
    Text,
    Bytes,
    Rows,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OutputKind {
    Classification,
    Embedding,
    Raw,
}

#[derive(Deserialize)]
struct Whole<P> {
    pipeline: P,
}

#[derive(Deserialize)]
struct WithInput<T> {
    input: T,
}

#[derive(Deserialize)]
struct WithOutput<T> {
    output: T,
}

/// What `model.yaml` holds: how requests that are no tensors become the model's tensors, and what becomes of its outputs.
#[cfg(test)]
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "model.yaml")]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) struct Schema {
    /// Turns POST /predict/NAME on: from a photograph, a text, bytes or rows to an answer. Without it the model takes tensors only.
    #[serde(default)]
    pipeline: Option<Pipeline>,
    /// How requests that wait share a run of the model.
    #[serde(default)]
    batching: Option<RawBatching>,
}

/// From a request's body to an answer.
#[cfg_attr(test, derive(JsonSchema))]
#[cfg_attr(test, serde(deny_unknown_fields))]
pub(super) struct Pipeline {
    /// What is done before the model runs.
    pub(super) input: Input,
    /// What is done with its outputs.
    pub(super) output: Output,
}

/// What a request's body is.
#[cfg_attr(test, derive(JsonSchema))]
#[cfg_attr(test, serde(untagged))]
pub(super) enum Input {
    Image(Image),
    Text(Text),
    Bytes(Bytes),
    Rows(Rows),
}

/// What becomes of the model's outputs.
#[cfg_attr(test, derive(JsonSchema))]
#[cfg_attr(test, serde(untagged))]
pub(super) enum Output {
    Classification(Classification),
    Embedding(Embedding),
    Raw(Raw),
}

/// The word of a kind, once more where its fields are read: any other was refused before.
macro_rules! word {
    ($name:ident, $variant:ident) => {
        #[derive(Deserialize)]
        #[cfg_attr(test, derive(JsonSchema))]
        #[serde(rename_all = "lowercase")]
        pub(super) enum $name {
            $variant,
        }
    };
}
word!(ImageWord, Image);
word!(TextWord, Text);
word!(BytesWord, Bytes);
word!(RowsWord, Rows);
word!(ClassificationWord, Classification);
word!(EmbeddingWord, Embedding);
word!(RawWord, Raw);

/// A photograph: JPEG, PNG or WebP.
#[derive(Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Image {
    /// A photograph.
    #[serde(rename = "kind")]
    pub(super) _kind: ImageWord,
    /// The pixels that the model takes.
    #[cfg_attr(test, schemars(range(min = 1, max = 8192)))]
    pub(super) width: u32,
    /// The pixels that the model takes.
    #[cfg_attr(test, schemars(range(min = 1, max = 8192)))]
    pub(super) height: u32,
    /// How an image of another size is brought to width × height.
    #[serde(default)]
    pub(super) resize: Resize,
    /// With crop: the pixels that the image's shorter side is brought to before the middle is cut out. Default: as few as cover the size.
    #[cfg_attr(test, schemars(range(min = 1, max = 8192)))]
    pub(super) short_side: Option<u32>,
    /// The order of the colours.
    #[serde(default)]
    pub(super) channels: Channels,
    /// The order of the axes.
    #[serde(default)]
    pub(super) layout: Layout,
    /// Three numbers in the order of the channels, or one for all, in units of a pixel (0 to 255): the tensor is (pixel - mean) / std. Default 0.
    #[serde(default)]
    #[cfg_attr(test, schemars(length(max = 3)))]
    pub(super) mean: Vec<f32>,
    /// Three numbers, or one for all; none is 0. Default 1.
    #[serde(default)]
    #[cfg_attr(test, schemars(length(max = 3)))]
    pub(super) std: Vec<f32>,
}

/// Texts, through a tokenizer.
#[derive(Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Text {
    /// Texts.
    #[serde(rename = "kind")]
    pub(super) _kind: TextWord,
    /// A tokenizer.json of Hugging Face's tokenizers, beside model.yaml.
    #[serde(default = "tokenizer_json")]
    pub(super) tokenizer: String,
    /// The most tokens of one text, special ones included. Default: what the tokenizer's file says, else 512.
    #[cfg_attr(test, schemars(range(min = 1, max = 65536)))]
    pub(super) max_tokens: Option<usize>,
    /// What is done with a text of more tokens.
    #[serde(default)]
    pub(super) overflow: Overflow,
    /// The most tokens, padding included, in one run of the model; a request of more texts is several runs. Default 16384.
    #[cfg_attr(test, schemars(range(min = 1, max = 1048576)))]
    pub(super) max_run_tokens: Option<usize>,
    /// The model's input for the tokens' numbers.
    #[serde(default = "input_ids")]
    pub(super) ids: String,
    /// The model's input that is 1 for a token and 0 for padding, where it has one.
    #[serde(default = "attention_mask")]
    pub(super) mask: String,
    /// The model's input for the tokens' types, where it has one: 0 in a single text.
    #[serde(default = "token_type_ids")]
    pub(super) types: String,
}

fn tokenizer_json() -> String {
    "tokenizer.json".to_owned()
}

fn input_ids() -> String {
    "input_ids".to_owned()
}

fn attention_mask() -> String {
    "attention_mask".to_owned()
}

fn token_type_ids() -> String {
    "token_type_ids".to_owned()
}

/// Any bytes: what stands at their beginning, in the middle and at the end.
#[derive(Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Bytes {
    /// Bytes.
    #[serde(rename = "kind")]
    pub(super) _kind: BytesWord,
    /// Bytes taken from the beginning.
    #[serde(default)]
    pub(super) head: usize,
    /// Bytes taken around the middle.
    #[serde(default)]
    pub(super) middle: usize,
    /// Bytes taken from the end.
    #[serde(default)]
    pub(super) tail: usize,
    /// Only so many bytes from each end are looked at. Default 4096, or what head and tail need.
    pub(super) block: Option<usize>,
    /// The number that stands where there are no bytes.
    #[serde(default = "no_byte")]
    pub(super) padding: i32,
    /// White space at the outer ends does not count.
    #[serde(default)]
    pub(super) strip: bool,
}

/// The first number that is no byte.
const fn no_byte() -> i32 {
    256
}

/// Rows of numbers and strings, as JSON or CSV.
#[derive(Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Rows {
    /// Rows of a table.
    #[serde(rename = "kind")]
    pub(super) _kind: RowsWord,
    /// The columns in the order in which the model takes them. Default: the names of the model's inputs, where each takes one column.
    #[serde(default)]
    pub(super) columns: Vec<Column>,
    /// What the model takes where a value is missing. Without it a missing value is refused.
    pub(super) missing: Option<Missing>,
}

/// A name, or a name and what stands for a missing value.
#[derive(Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(untagged)]
pub(super) enum Column {
    Name(String),
    Described(Described),
}

/// A column with more than a name.
#[derive(Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Described {
    /// As requests write it.
    pub(super) name: String,
    /// What the model takes where a value of this column is missing.
    pub(super) missing: Option<Missing>,
}

/// A number (.nan among them) or a string.
#[derive(Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(untagged)]
pub(super) enum Missing {
    Number(f64),
    Text(String),
}

/// One score for each class.
#[derive(Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Classification {
    /// Scores become classes.
    #[serde(rename = "kind")]
    pub(super) _kind: ClassificationWord,
    /// The model's output. Default: its first one of floats.
    pub(super) tensor: Option<String>,
    /// A file beside model.yaml: UTF-8 text, one label a line, in the order of the scores. Without it classes are shown by number.
    pub(super) labels: Option<String>,
    /// The scores are logits of classes of which one holds.
    #[serde(default)]
    pub(super) softmax: bool,
    /// The scores are logits of classes of which each holds or not.
    #[serde(default)]
    pub(super) sigmoid: bool,
    /// How many classes are answered, the best first. Default 5.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub(super) top_k: Option<usize>,
    /// The least probability that is answered.
    pub(super) threshold: Option<f32>,
}

/// A vector for each item of a request.
#[derive(Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Embedding {
    /// Outputs become vectors.
    #[serde(rename = "kind")]
    pub(super) _kind: EmbeddingWord,
    /// The model's output. Default: its first one of floats.
    pub(super) tensor: Option<String>,
    /// How the vectors of the tokens become one. Default: mean where the output has an axis of tokens.
    pub(super) pooling: Option<Pooling>,
    /// Scale the vector to length 1.
    #[serde(default = "yes")]
    pub(super) normalize: bool,
}

const fn yes() -> bool {
    true
}

/// The model's outputs as they are.
#[derive(Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Raw {
    /// Tensors as JSON, as in the Open Inference Protocol.
    #[serde(rename = "kind")]
    pub(super) _kind: RawWord,
    /// The outputs to answer. Default: all.
    #[serde(default)]
    pub(super) tensors: Vec<String>,
}

/// How an image is brought to the model's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
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
#[cfg_attr(test, derive(JsonSchema))]
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
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Layout {
    /// Batch, channels, height, width.
    #[default]
    Nchw,
    /// Batch, height, width, channels.
    Nhwc,
}

/// What is done with a text of too many tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// The end is cut off.
    #[default]
    Truncate,
    /// The request is refused.
    Refuse,
}

/// How the vectors of the tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean, padding left out.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's that is no padding.
    Last,
}

/// The sections of a file and the kinds in them. A file of nothing but comments has none.
pub(super) fn sections(source: &Source) -> Result<Sections, Failure> {
    let blank = source
        .text
        .lines()
        .all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'));
    if blank {
        return Ok(Sections {
            pipeline: None,
            batching: None,
        });
    }
    read(source)
}

/// The pipeline of a file whose kinds are known.
pub(super) fn pipeline(source: &Source, kinds: &Kinds) -> Result<Pipeline, Failure> {
    let input = match kinds.input.kind {
        InputKind::Image => Input::Image(input(source)?),
        InputKind::Text => Input::Text(input(source)?),
        InputKind::Bytes => Input::Bytes(input(source)?),
        InputKind::Rows => Input::Rows(input(source)?),
    };
    let output = match kinds.output.kind {
        OutputKind::Classification => Output::Classification(output(source)?),
        OutputKind::Embedding => Output::Embedding(output(source)?),
        OutputKind::Raw => Output::Raw(output(source)?),
    };
    Ok(Pipeline { input, output })
}

fn input<T: DeserializeOwned>(source: &Source) -> Result<T, Failure> {
    read::<Whole<WithInput<T>>>(source).map(|whole| whole.pipeline.input)
}

fn output<T: DeserializeOwned>(source: &Source) -> Result<T, Failure> {
    read::<Whole<WithOutput<T>>>(source).map(|whole| whole.pipeline.output)
}

fn read<T: DeserializeOwned>(source: &Source) -> Result<T, Failure> {
    // The values that may be NaN say so themselves; a field of another section is not judged here.
    let options = serde_saphyr::options! {
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
    };
    serde_saphyr::from_str_with_options(&source.text, options).map_err(|e| {
        // The first line is the sentence, the others show the place, which it names.
        let text = e.to_string();
        let first = text.lines().next().unwrap_or_default();
        source.wrong(first.strip_prefix("error: ").unwrap_or(first))
    })
}
