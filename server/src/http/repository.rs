//! Triton's repository extension: the index, load and unload.

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use http::{Request, StatusCode};
use ortolan_model::{Failure, Reason};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Answer, Shared, body, error::ApiError, json, object};
use crate::repository::{self, ManageError};

/// More than any request here needs.
const MAX_BODY: usize = 64 * 1024;

#[derive(Default, Deserialize)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

#[derive(Default, Deserialize)]
struct ChangeRequest {
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// `POST /v2/repository/index`
pub(super) async fn index(State(app): Shared, request: Request<Body>) -> Answer {
    let IndexRequest { ready } = read(request).await?;
    let entries = repository::index(&app, ready).await?;
    let body = serde_json::to_vec(&entries)
        .map_err(|error| ApiError::internal(format!("cannot write the index: {error}")))?;
    Ok(json(body))
}

/// `POST /v2/repository/models/{m}/load`
pub(super) async fn load(
    State(app): Shared,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Answer {
    let ChangeRequest { parameters } = read(request).await?;
    repository::load(&app, &model, parameters.keys().map(String::as_str)).await?;
    Ok(Response::new(Body::empty()))
}

/// `POST /v2/repository/models/{m}/unload`
pub(super) async fn unload(
    State(app): Shared,
    Path(model): Path<String>,
    request: Request<Body>,
) -> Answer {
    // `unload_dependents` is about ensembles, which are not served here: there are none.
    let ChangeRequest { .. } = read(request).await?;
    repository::unload(&app, &model).await?;
    Ok(Response::new(Body::empty()))
}

/// The body may be empty.
async fn read<T: Default + for<'de> Deserialize<'de>>(
    request: Request<Body>,
) -> Result<T, ApiError> {
    let body = body::receive(request, MAX_BODY).await?;
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    object::read(&body)
}

impl From<ManageError> for ApiError {
    fn from(error: ManageError) -> Self {
        let message = error.to_string();
        let code = match error {
            ManageError::Off => StatusCode::FORBIDDEN,
            ManageError::NotExplicit(_) => StatusCode::CONFLICT,
            ManageError::Unknown(_) => StatusCode::NOT_FOUND,
            ManageError::Parameter(_) => StatusCode::BAD_REQUEST,
            ManageError::Failed { failure, .. } => code(&failure),
        };
        Self::new(code, message)
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self::new(code(&failure), failure.to_string())
    }
}

/// Whose fault a load's failure is: the model's, the moment's, or ours.
fn code(failure: &Failure) -> StatusCode {
    match failure.reason {
        Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::StoreUnavailable | Reason::OutOfSpace => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}
