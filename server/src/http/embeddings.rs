//! `POST /v1/embeddings`: OpenAI's shape, for models whose pipeline is text → embedding.
//!
//! `input` is a string, strings, the tokens of one text or of several; `encoding_format` is `float` or
//! `base64` (little-endian FP32, what OpenAI's own client asks for). Errors are ours: `{"error": "…"}`.

use std::{borrow::Cow, sync::Arc};

use axum::{body::Body, extract::State, response::Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Shared, arrived, body, counted, error::ApiError, json};
use crate::{
    deadline,
    metrics::Protocol,
    model::Model,
    pipeline::{self, Embedded, PipelineError, Texts},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(default)]
    encoding_format: Encoding,
    #[serde(default)]
    dimensions: Option<usize>,
    /// Who asks; nothing is done with it.
    #[serde(borrow, default, rename = "user")]
    _user: Option<Cow<'a, str>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    data: Vec<Datum<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Datum<'a> {
    object: &'static str,
    index: usize,
    embedding: Vector<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector<'a> {
    Float(&'a [f32]),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// `POST /v1/embeddings`
pub(super) async fn embeddings(
    State(app): Shared,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let since = arrived(&request);
    let timeout = deadline::of_rest(request.headers()).map_err(ApiError::bad)?;
    let until = deadline::earliest(since, [timeout]);
    let body = body::receive(request, app.max_body).await?;
    let asked: Asked<'_> = serde_json::from_slice(&body).map_err(|error| {
        ApiError::bad(format!(
            "the body is not what is read here: {error}; send {{\"model\": \"name\", \"input\": [\"text\", …]}}"
        ))
    })?;
    let found = app.catalog.find(&asked.model, None);
    let work = async |model: Arc<Model>| {
        let texts = texts(asked.input)?;
        let embedded = pipeline::embed(&app, &model, texts, until).await;
        let embedded = embedded.map_err(|error| match error {
            PipelineError::None(sentence) => ApiError::bad(sentence),
            error => error.into(),
        })?;
        check_dimensions(asked.dimensions, &embedded)?;
        Ok(json(answer(&asked, &embedded)?))
    };
    Ok(counted(&app, Protocol::Embeddings, found, work).await)
}

/// One text or several, as words or as tokens.
fn texts(input: &RawValue) -> Result<Texts, ApiError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Input {
        Word(String),
        Words(Vec<String>),
        Tokens(Vec<u32>),
        ManyTokens(Vec<Vec<u32>>),
    }
    let input: Input = serde_json::from_str(input.get()).map_err(|_| {
        ApiError::bad(
            "\"input\" is neither a text nor texts nor tokens; send \"text\", [\"text\", …], [1, 2, …] or [[1, 2], …]",
        )
    })?;
    Ok(match input {
        Input::Word(text) => Texts::Words(vec![text]),
        Input::Words(texts) => Texts::Words(texts),
        Input::Tokens(tokens) => Texts::Tokens(vec![tokens]),
        Input::ManyTokens(texts) => Texts::Tokens(texts),
    })
}

/// A vector is not cut: what is left of one would mean little for a model that was not trained so.
fn check_dimensions(dimensions: Option<usize>, embedded: &Embedded) -> Result<(), ApiError> {
    let width = embedded.vectors.first().map_or(0, Vec::len);
    match dimensions {
        Some(wanted) if wanted != width => Err(ApiError::bad(format!(
            "dimensions is {wanted}, and the model's vectors have {width}; leave it out"
        ))),
        _ => Ok(()),
    }
}

fn answer(asked: &Asked<'_>, embedded: &Embedded) -> Result<Vec<u8>, ApiError> {
    let bytes = |values: &[f32]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    };
    let data = embedded.vectors.iter().enumerate().map(|(index, values)| {
        let embedding = match asked.encoding_format {
            Encoding::Float => Vector::Float(values),
            Encoding::Base64 => Vector::Base64(STANDARD.encode(bytes(values))),
        };
        Datum {
            object: "embedding",
            index,
            embedding,
        }
    });
    let answer = Answer {
        object: "list",
        data: data.collect(),
        model: &asked.model,
        usage: Usage {
            prompt_tokens: embedded.tokens,
            total_tokens: embedded.tokens,
        },
    };
    serde_json::to_vec(&answer)
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
