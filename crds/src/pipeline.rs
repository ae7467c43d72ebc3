//! `spec.server.pipeline`: from a request's body to an answer, in the words of `model.yaml`.
//!
//! One flat type for all kinds of input and one for all kinds of output, as `model.yaml` has them, so that a
//! section of it can be pasted; rules say which field belongs to which kind. The server checks the same once more,
//! and beside it what only the model tells: its inputs, its outputs, the files in its archive.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// From a request's body to an answer, in the place of the `pipeline` in the model's own `model.yaml`: turns
/// `POST /predict/NAME` on, and `POST /v1/embeddings` from a text to an embedding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.output.pooling) || self.input.kind == 'text'")
        .message("pooling is over the tokens of a text: leave it out, or write input.kind: text"),
)]
pub struct Pipeline {
    /// What is done before the model runs.
    pub input: PipelineInput,
    /// What is done with the model's outputs.
    pub output: PipelineOutput,
}

/// What is done before the model runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.kind != 'image' || (has(self.width) && has(self.height))")
        .message("kind: image needs width and height: write the pixels that the model takes, such as width: 224 and height: 224"),
    validation = Rule::new("self.kind == 'image' || !(has(self.width) || has(self.height) || has(self.resize) || has(self.shortSide) || has(self.channels) || has(self.layout) || has(self.mean) || has(self.std))")
        .message("width, height, resize, shortSide, channels, layout, mean and std belong to kind: image: leave them out, or write kind: image"),
    validation = Rule::new("!has(self.shortSide) || ((!has(self.resize) || self.resize == 'crop') && (!has(self.width) || self.shortSide >= self.width) && (!has(self.height) || self.shortSide >= self.height))")
        .message("shortSide belongs to resize: crop, and what is cut out must fit in: leave it out, or write at least the larger of width and height"),
    validation = Rule::new("self.kind == 'text' || !(has(self.tokenizer) || has(self.maxTokens) || has(self.overflow) || has(self.maxRunTokens) || has(self.ids) || has(self.mask) || has(self.types))")
        .message("tokenizer, maxTokens, overflow, maxRunTokens, ids, mask and types belong to kind: text: leave them out, or write kind: text"),
    validation = Rule::new("self.kind == 'bytes' || !(has(self.head) || has(self.middle) || has(self.tail) || has(self.block) || has(self.padding) || has(self.strip))")
        .message("head, middle, tail, block, padding and strip belong to kind: bytes: leave them out, or write kind: bytes"),
    validation = Rule::new("self.kind != 'bytes' || (has(self.head) && self.head > 0) || (has(self.middle) && self.middle > 0) || (has(self.tail) && self.tail > 0)")
        .message("kind: bytes takes no bytes: write how many the model takes from where, such as head: 1024 and tail: 1024"),
    validation = Rule::new("(has(self.head) ? self.head : 0) + (has(self.middle) ? self.middle : 0) + (has(self.tail) ? self.tail : 0) <= 1048576")
        .message("head, middle and tail take more than 1048576 bytes together: write less"),
    validation = Rule::new("!has(self.block) || ((!has(self.head) || self.block >= self.head) && (!has(self.tail) || self.block >= self.tail))")
        .message("block is less than head or tail takes: leave it out, or write at least the larger of the two"),
    validation = Rule::new("self.kind == 'rows' || !(has(self.columns) || has(self.missing))")
        .message("columns and missing belong to kind: rows: leave them out, or write kind: rows"),
)]
pub struct PipelineInput {
    /// What a request's body is: a photograph (`image`: JPEG, PNG or WebP), texts through a tokenizer (`text`), a
    /// file (`bytes`), rows of a table as JSON or CSV (`rows`).
    pub kind: InputKind,
    /// `image`: the pixels that the model takes; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8192))]
    pub width: Option<i32>,
    /// `image`: the pixels that the model takes; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8192))]
    pub height: Option<i32>,
    /// `image`: how a photograph of another size is brought to width × height; `crop` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// `image` with `crop`: the pixels that the shorter side is brought to before the middle is cut out; as few as
    /// cover the size when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8192))]
    pub short_side: Option<i32>,
    /// `image`: the order of the colours; `RGB` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// `image`: the order of the axes; `NCHW` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// `image`: three numbers in the order of the channels, or one for all, in units of a pixel (0 to 255): the
    /// tensor is (pixel - mean) / std. 0 when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    #[x_kube(
        validation = Rule::new("size(self) != 2")
            .message("write three numbers in the order of the channels, or one for all"),
    )]
    pub mean: Vec<f64>,
    /// `image`: three numbers in the order of the channels, or one for all: what the difference is divided by. 1 when
    /// absent; a model that takes pixels / 255 has `[255]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    #[x_kube(
        validation = Rule::new("size(self) != 2")
            .message("write three numbers in the order of the channels, or one for all"),
        validation = Rule::new("self.all(v, v != 0.0)")
            .message("the tensor is (pixel - mean) / std: write the divisor, such as 255, and no 0"),
    )]
    pub std: Vec<f64>,
    /// `text`: a `tokenizer.json` of Hugging Face's tokenizers. It is a file of the model's archive or folder, beside
    /// the `.onnx`; `tokenizer.json` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(
        validation = Rule::new("self.matches('^[^/]+(/[^/]+)*$') && !self.matches('(^|/)[.][.](/|$)')")
            .message("write the name of a file that lies beside the model in its archive or folder, such as tokenizer.json"),
    )]
    pub tokenizer: Option<String>,
    /// `text`: the most tokens of one text, special ones included; what the tokenizer's file says when absent,
    /// else 512.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65536))]
    pub max_tokens: Option<i32>,
    /// `text`: what is done with a text of more tokens; `truncate` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// `text`: the most tokens, padding included, in one run of the model; a request of more texts is several runs.
    /// 16384 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_run_tokens: Option<i32>,
    /// `text`: the model's input for the tokens' numbers; `input_ids` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub ids: Option<String>,
    /// `text`: the model's input that is 1 for a token and 0 for padding, where it has one; `attention_mask` when
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub mask: Option<String>,
    /// `text`: the model's input for the tokens' types, where it has one; `token_type_ids` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub types: Option<String>,
    /// `bytes`: bytes taken from the beginning; 0 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_048_576))]
    pub head: Option<i32>,
    /// `bytes`: bytes taken around the middle; 0 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_048_576))]
    pub middle: Option<i32>,
    /// `bytes`: bytes taken from the end; 0 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_048_576))]
    pub tail: Option<i32>,
    /// `bytes`: only so many bytes from each end are looked at; 4096 when absent, or what head and tail need.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub block: Option<i32>,
    /// `bytes`: the number that stands where there are no bytes; 256 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<i32>,
    /// `bytes`: white space before the head and behind the tail does not count; it does when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strip: Option<bool>,
    /// `rows`: the columns in the order in which the model takes them, its inputs one after the other. When absent:
    /// the names of the inputs, where each takes one column; else columns have no names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 1000),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub columns: Vec<Column>,
    /// `rows`: what the model takes where a value is missing: a whole number, or a string, which in a column of
    /// numbers is read as one, such as `"NaN"` or `"0.5"`. A missing value is refused when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

/// One column of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// As requests write it.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// What the model takes where a value of this column is missing; what `missing` beside `columns` says when
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

/// What is done with the model's outputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.kind == 'classification' || !(has(self.labels) || has(self.softmax) || has(self.sigmoid) || has(self.topK) || has(self.threshold))")
        .message("labels, softmax, sigmoid, topK and threshold belong to kind: classification: leave them out, or write kind: classification"),
    validation = Rule::new("!(has(self.softmax) && self.softmax && has(self.sigmoid) && self.sigmoid)")
        .message("softmax and sigmoid exclude each other: write softmax where one class holds, sigmoid where several may"),
    validation = Rule::new("self.kind == 'embedding' || !(has(self.pooling) || has(self.normalize))")
        .message("pooling and normalize belong to kind: embedding: leave them out, or write kind: embedding"),
    validation = Rule::new("self.kind != 'raw' || !has(self.tensor)")
        .message("tensor, one name, belongs to kind: classification and embedding: with kind: raw write tensors, a list"),
    validation = Rule::new("self.kind == 'raw' || !has(self.tensors)")
        .message("tensors, a list, belongs to kind: raw: with another kind write tensor, one name"),
)]
pub struct PipelineOutput {
    /// What an answer is: the best classes (`classification`), a vector for each item (`embedding`), the tensors as
    /// they are (`raw`).
    pub kind: OutputKind,
    /// `classification`, `embedding`: the model's output; its first one of floats when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub tensor: Option<String>,
    /// `classification`: the file with the names of the classes, one a line, in the order of the scores. It is a file
    /// of the model's archive or folder, beside the `.onnx`; classes are shown by number when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(
        validation = Rule::new("self.matches('^[^/]+(/[^/]+)*$') && !self.matches('(^|/)[.][.](/|$)')")
            .message("write the name of a file that lies beside the model in its archive or folder, such as labels.txt"),
    )]
    pub labels: Option<String>,
    /// `classification`: the scores are logits of classes of which one holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub softmax: Option<bool>,
    /// `classification`: the scores are logits of classes of which each holds or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigmoid: Option<bool>,
    /// `classification`: how many classes are answered, the best first; 5 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub top_k: Option<i32>,
    /// `classification`: the least probability that is answered; none when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// `embedding` of texts: how the vectors of the tokens become one; `mean` when absent and the output has an axis
    /// of tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// `embedding`: scale the vector to length 1; `true` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize: Option<bool>,
    /// `raw`: the outputs to answer; all when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 255)))]
    pub tensors: Vec<String>,
}

/// A closed set of words, as `model.yaml` writes them; the first is what [`Default`] gives.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident $case:literal { $(#[$first_doc:meta])* $first:ident, $($(#[$rest_doc:meta])* $rest:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = $case)]
        pub enum $name {
            $(#[$first_doc])*
            #[default]
            $first,
            $($(#[$rest_doc])* $rest,)*
        }
    };
}

words! {
    /// What a request's body is.
    InputKind "lowercase" {
        /// A photograph.
        Image,
        /// Texts.
        Text,
        /// A file.
        Bytes,
        /// Rows of a table.
        Rows,
    }
}
words! {
    /// What an answer is.
    OutputKind "lowercase" {
        /// The best classes.
        Classification,
        /// A vector for each item.
        Embedding,
        /// The tensors as they are.
        Raw,
    }
}
words! {
    /// How a photograph is brought to the model's size.
    Resize "lowercase" {
        /// Keep the proportions; cut the middle out.
        Crop,
        /// Keep the proportions; fill the rest with the mean colour.
        Fit,
        /// Ignore the proportions.
        Stretch,
    }
}
words! {
    /// The order of the colours.
    Channels "UPPERCASE" {
        /// Red first.
        Rgb,
        /// Blue first.
        Bgr,
    }
}
words! {
    /// The order of the axes.
    Layout "UPPERCASE" {
        /// Batch, channels, height, width.
        Nchw,
        /// Batch, height, width, channels.
        Nhwc,
    }
}
words! {
    /// What is done with a text of too many tokens.
    Overflow "lowercase" {
        /// The end is cut off.
        Truncate,
        /// The request is refused.
        Refuse,
    }
}
words! {
    /// How the vectors of the tokens become one.
    Pooling "lowercase" {
        /// Their mean, padding left out.
        Mean,
        /// The first token's.
        Cls,
        /// The last token's that is no padding.
        Last,
    }
}

/// What the model takes where a value is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Missing {
    /// A whole number.
    Number(i64),
    /// A text, or a number as text: JSON has no NaN, and the API no fractions here.
    Text(String),
}

impl schemars::JsonSchema for Missing {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Missing".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schema::number_or_text(generator)
    }
}
