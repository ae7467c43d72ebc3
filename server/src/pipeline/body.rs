//! From a body, whose form is known, to the tensors of its runs.
//!
//! JSON has Hugging Face's shape: `{"inputs": …, "parameters": {"top_k": 3}}`, or the value of `inputs`
//! alone where that is an array.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Feed, InputError, Prepared, Reader, form::Form, text::Text};

/// What a body became.
#[derive(Debug, PartialEq)]
pub struct Fed {
    /// Together they have each item once.
    pub feeds: Vec<Feed>,
    /// How many items there are.
    pub count: usize,
    /// The body was a list, if of one item: so is the answer.
    pub is_list: bool,
    /// How many classes the client asks for.
    pub top_k: Option<usize>,
    /// Of all texts, special ones included, padding not.
    pub tokens: Option<usize>,
}

/// Reads a body. Blocking: a photograph takes milliseconds.
pub fn read(prepared: &Prepared, form: Form, body: &[u8]) -> Result<Fed, InputError> {
    match (&prepared.reader, form.told_by(&prepared.reader, body)) {
        (Reader::Image(image), Form::Image(claimed)) => Ok(one(image.tensor(body, claimed)?)),
        (Reader::Bytes(bytes), _) => Ok(one(bytes.tensor(body))),
        (Reader::Text(text), Form::Json) => {
            let request = json(body, TEXTS)?;
            let (texts, is_list) = strings(request.inputs)?;
            let fed = fed_texts(text, &texts, is_list)?;
            Ok(Fed {
                top_k: request.parameters.top_k,
                ..fed
            })
        }
        (Reader::Text(text), _) => {
            let whole = std::str::from_utf8(body).map_err(|error| {
                InputError::Undecodable(format!(
                    "the body is not UTF-8 from byte {} on; send the text in UTF-8",
                    error.valid_up_to()
                ))
            })?;
            fed_texts(text, &[whole], false)
        }
        (Reader::Rows(rows), Form::Json) => {
            let request = json(body, ROWS)?;
            let (feeds, is_list) = rows.json(request.inputs)?;
            Ok(Fed {
                top_k: request.parameters.top_k,
                ..fed(feeds, is_list)
            })
        }
        (Reader::Rows(rows), form) => {
            let header = form != Form::Csv { header: false };
            Ok(fed(rows.csv(body, header)?, true))
        }
        (reader @ Reader::Image(_), _) => Err(InputError::Kind(format!(
            "the body is no image; send {}",
            reader.kinds()
        ))),
    }
}

const TEXTS: &str = r#"send {"inputs": "text"} or {"inputs": ["text", …]}"#;
const ROWS: &str = r#"send {"inputs": [[1, 2], …]} or {"inputs": [{"column": 1, …}, …]}"#;

fn one(tensor: crate::tensor::Tensor) -> Fed {
    let feed = Feed {
        inputs: vec![tensor],
        items: vec![0],
        spans: Vec::new(),
    };
    fed(vec![feed], false)
}

fn fed(feeds: Vec<Feed>, is_list: bool) -> Fed {
    Fed {
        count: feeds.iter().map(|feed| feed.items.len()).sum(),
        feeds,
        is_list,
        top_k: None,
        tokens: None,
    }
}

fn fed_texts(text: &Text, texts: &[impl AsRef<str>], is_list: bool) -> Result<Fed, InputError> {
    let tokens = text.encode(texts)?;
    Ok(Fed {
        tokens: Some(tokens.iter().map(super::text::Tokens::len).sum()),
        ..fed(text.feeds(&tokens), is_list)
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<'a> {
    #[serde(borrow)]
    inputs: &'a RawValue,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    top_k: Option<usize>,
}

fn json<'a>(body: &'a [u8], expected: &str) -> Result<Request<'a>, InputError> {
    let wrong = |error: serde_json::Error| {
        InputError::Malformed(format!(
            "the body is not what is read here: {error}; {expected}"
        ))
    };
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{') {
        return serde_json::from_slice(body).map_err(wrong);
    }
    Ok(Request {
        inputs: serde_json::from_slice(body).map_err(wrong)?,
        parameters: Parameters::default(),
    })
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Str<'a>(#[serde(borrow)] Cow<'a, str>);

impl AsRef<str> for Str<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// One string or several.
fn strings(raw: &RawValue) -> Result<(Vec<Str<'_>>, bool), InputError> {
    let wrong = |error: serde_json::Error| {
        InputError::Malformed(format!("\"inputs\" holds no texts: {error}; {TEXTS}"))
    };
    if !raw.get().starts_with('[') {
        return Ok((vec![serde_json::from_str(raw.get()).map_err(wrong)?], false));
    }
    let texts: Vec<Str<'_>> = serde_json::from_str(raw.get()).map_err(wrong)?;
    Ok((texts, true))
}
