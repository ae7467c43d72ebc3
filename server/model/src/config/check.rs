//! From what is written to what may be used: ranges, defaults, and what does not go together.

use super::{
    Activation, BytesInput, Classification, Column, Embedding, ImageInput, Input, Missing, Output,
    Pipeline, Place, Resize, RowsInput, Source, TextInput, file_in, raw, read_labels,
};
use crate::failure::Failure;

const MAX_SIDE: u32 = 8192;
/// More than any window that a model reads; a request holds them all in memory.
const MAX_WINDOW: usize = 1 << 20;
const DEFAULT_BLOCK: usize = 4096;
const DEFAULT_TOP_K: usize = 5;
/// Longer than the context of any model for embeddings.
const MAX_TOKENS: usize = 65_536;
/// As other servers of embeddings have it: 32 texts of 512 tokens.
const DEFAULT_RUN_TOKENS: usize = 16_384;
const MAX_RUN_TOKENS: usize = 1 << 20;

/// A pipeline that is checked but for the files that it names.
pub(super) struct Unread {
    input: Input,
    output: Output,
    /// The tokenizer, relative to the package.
    tokenizer: Option<String>,
    /// The labels, relative to the package.
    labels: Option<String>,
}

impl Unread {
    /// Finds and reads the files.
    pub(super) fn read(mut self, source: &Source, place: &Place<'_>) -> Result<Pipeline, Failure> {
        if let (Input::Text(text), Some(name)) = (&mut self.input, &self.tokenizer) {
            let field = "pipeline.input.tokenizer";
            text.tokenizer = file_in(source, field, name, "tokenizer.json", place)?;
        }
        if let (Output::Classification(classes), Some(name)) = (&mut self.output, &self.labels) {
            classes.labels = read_labels(source, name, place)?;
        }
        Ok(Pipeline {
            input: self.input,
            output: self.output,
        })
    }
}

/// Checks one pipeline.
pub(super) fn pipeline(source: &Source, raw: raw::Pipeline) -> Result<Unread, Failure> {
    let mut tokenizer = None;
    let input = match raw.input {
        raw::Input::Image(raw) => Input::Image(image(source, raw)?),
        raw::Input::Text(raw) => {
            tokenizer = Some(raw.tokenizer.clone());
            Input::Text(text(source, raw)?)
        }
        raw::Input::Bytes(raw) => Input::Bytes(bytes(source, &raw)?),
        raw::Input::Rows(raw) => Input::Rows(rows(source, raw)?),
    };
    let mut labels = None;
    let output = match raw.output {
        raw::Output::Classification(raw) => {
            labels.clone_from(&raw.labels);
            Output::Classification(classification(source, raw)?)
        }
        raw::Output::Embedding(raw) => Output::Embedding(embedding(source, &input, raw)?),
        raw::Output::Raw(raw) => Output::Raw {
            tensors: raw.tensors,
        },
    };
    Ok(Unread {
        input,
        output,
        tokenizer,
        labels,
    })
}

fn image(source: &Source, raw: raw::Image) -> Result<ImageInput, Failure> {
    for (name, side) in [("width", raw.width), ("height", raw.height)] {
        if !(1..=MAX_SIDE).contains(&side) {
            return Err(source.wrong(&format!(
                "pipeline.input.{name} is {side}; write the pixels that the model takes, 1 to {MAX_SIDE}"
            )));
        }
    }
    let least = raw.width.max(raw.height);
    if let Some(side) = raw.short_side
        && (raw.resize != Resize::Crop || !(least..=MAX_SIDE).contains(&side))
    {
        return Err(source.wrong(&format!(
            "pipeline.input.shortSide is {side}; it belongs to resize: crop, and is {least} to {MAX_SIDE}: what is cut out must fit in"
        )));
    }
    let mean = channels_of(source, "mean", raw.mean, 0.0)?;
    let std = channels_of(source, "std", raw.std, 1.0)?;
    if std.contains(&0.0) {
        return Err(source.wrong(
            "pipeline.input.std holds a 0; a tensor value is (pixel - mean) / std, so write the \
             divisor, for example [255, 255, 255]",
        ));
    }
    Ok(ImageInput {
        width: raw.width,
        height: raw.height,
        resize: raw.resize,
        short_side: raw.short_side,
        channels: raw.channels,
        layout: raw.layout,
        mean,
        std,
    })
}

/// Three values; one stands for all three, none for `default`.
fn channels_of(
    source: &Source,
    name: &str,
    values: Vec<f32>,
    default: f32,
) -> Result<Vec<f32>, Failure> {
    if values.iter().any(|v| !v.is_finite()) {
        return Err(source.wrong(&format!(
            "pipeline.input.{name} holds a value that is no finite number"
        )));
    }
    match values[..] {
        [] => Ok(vec![default; 3]),
        [v] => Ok(vec![v; 3]),
        [_, _, _] => Ok(values),
        _ => Err(source.wrong(&format!(
            "pipeline.input.{name} has {} values; write one for each colour, for example \
             [127, 127, 127], in units of a pixel (0 to 255)",
            values.len()
        ))),
    }
}

fn text(source: &Source, raw: raw::Text) -> Result<TextInput, Failure> {
    if let Some(tokens) = raw.max_tokens
        && !(1..=MAX_TOKENS).contains(&tokens)
    {
        return Err(source.wrong(&format!(
            "pipeline.input.maxTokens is {tokens}; write the tokens that the model takes of one text, 1 to {MAX_TOKENS}"
        )));
    }
    let max_run_tokens = raw.max_run_tokens.unwrap_or(DEFAULT_RUN_TOKENS);
    if !(1..=MAX_RUN_TOKENS).contains(&max_run_tokens) {
        return Err(source.wrong(&format!(
            "pipeline.input.maxRunTokens is {max_run_tokens}; write the tokens of all texts that may go into one run, 1 to {MAX_RUN_TOKENS}"
        )));
    }
    Ok(TextInput {
        tokenizer: raw.tokenizer.into(),
        max_tokens: raw.max_tokens,
        overflow: raw.overflow,
        max_run_tokens,
        ids: raw.ids,
        mask: raw.mask,
        types: raw.types,
    })
}

fn bytes(source: &Source, raw: &raw::Bytes) -> Result<BytesInput, Failure> {
    let window = raw.head.saturating_add(raw.middle).saturating_add(raw.tail);
    if window == 0 {
        return Err(source.wrong(
            "pipeline.input takes no bytes; write how many the model reads: head, middle, tail",
        ));
    }
    let longest = raw.head.max(raw.tail);
    let block = raw.block.unwrap_or(DEFAULT_BLOCK.max(longest));
    if window > MAX_WINDOW || block > MAX_WINDOW {
        return Err(source.wrong(&format!(
            "pipeline.input reads {} bytes; at most {MAX_WINDOW} are read of one request",
            window.max(block)
        )));
    }
    if block < longest {
        return Err(source.wrong(&format!(
            "pipeline.input.block is {block}, less than head and tail take; write {longest} or more"
        )));
    }
    Ok(BytesInput {
        head: raw.head,
        middle: raw.middle,
        tail: raw.tail,
        block,
        padding: raw.padding,
        strip: raw.strip,
    })
}

fn rows(source: &Source, raw: raw::Rows) -> Result<RowsInput, Failure> {
    let mut columns: Vec<Column> = Vec::with_capacity(raw.columns.len());
    for column in raw.columns {
        let column = match column {
            raw::Column::Name(name) => Column {
                name,
                missing: None,
            },
            raw::Column::Described(column) => Column {
                name: column.name,
                missing: column.missing.map(missing),
            },
        };
        if column.name.is_empty() {
            return Err(source.wrong(
                "pipeline.input.columns holds an empty name; write the names that requests use",
            ));
        }
        if columns.iter().any(|other| other.name == column.name) {
            return Err(source.wrong(&format!(
                "pipeline.input.columns names {:?} twice",
                column.name
            )));
        }
        columns.push(column);
    }
    Ok(RowsInput {
        columns,
        missing: raw.missing.map(missing),
    })
}

fn missing(raw: raw::Missing) -> Missing {
    match raw {
        raw::Missing::Number(number) => Missing::Number(number),
        raw::Missing::Text(text) => Missing::Text(text),
    }
}

fn classification(source: &Source, raw: raw::Classification) -> Result<Classification, Failure> {
    let top_k = raw.top_k.unwrap_or(DEFAULT_TOP_K);
    if top_k == 0 {
        return Err(
            source.wrong("pipeline.output.topK is 0; write how many classes to answer, 1 or more")
        );
    }
    if raw
        .threshold
        .is_some_and(|threshold| !threshold.is_finite())
    {
        return Err(source.wrong(
            "pipeline.output.threshold is no finite number; write the least probability to answer, for example 0.5",
        ));
    }
    let activation = match (raw.softmax, raw.sigmoid) {
        (false, false) => Activation::None,
        (true, false) => Activation::Softmax,
        (false, true) => Activation::Sigmoid,
        (true, true) => {
            return Err(source.wrong(
                "pipeline.output has softmax and sigmoid; write softmax where one class holds, sigmoid where several may",
            ));
        }
    };
    Ok(Classification {
        tensor: raw.tensor,
        labels: Vec::new(),
        activation,
        top_k,
        threshold: raw.threshold,
    })
}

fn embedding(source: &Source, input: &Input, raw: raw::Embedding) -> Result<Embedding, Failure> {
    if raw.pooling.is_some() && !matches!(input, Input::Text(_)) {
        return Err(source.wrong(
            "pipeline.output.pooling is over the tokens of a text, and the input is no text; leave it out",
        ));
    }
    Ok(Embedding {
        tensor: raw.tensor,
        pooling: raw.pooling,
        normalize: raw.normalize,
    })
}
