//! Errors as clients see them: a code and `{"error": "<what was wrong and what was expected>"}`.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::{
    admission::Crowded,
    catalog::FindError,
    infer::RunError,
    output::Unreadable,
    pipeline::{InputError, PipelineError},
};

/// Until a turned-away client should try again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Again {
    /// At once: nothing was begun, and another server may have a place, or the model. The router asks another pod.
    AtOnce,
    /// In a second: a queue empties in less.
    #[default]
    Soon,
}

impl Again {
    /// The value of `Retry-After`.
    const fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::AtOnce => "0",
            Self::Soon => "1",
        })
    }
}

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP code.
    pub code: StatusCode,
    /// The sentence.
    pub message: String,
    /// What a 503 says of the next try.
    pub again: Again,
}

impl ApiError {
    /// An error with a code and a sentence.
    pub fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            again: Again::default(),
        }
    }

    /// 400: the request is wrong.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 422: the input of a pipeline cannot be decoded.
    pub fn undecodable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// 415: not a kind of body that this path reads.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    /// 500: our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 503: try again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

impl From<Crowded> for ApiError {
    fn from(crowded: Crowded) -> Self {
        Self {
            again: Again::AtOnce,
            ..Self::unavailable(crowded.to_string())
        }
    }
}

impl From<RunError> for ApiError {
    fn from(error: RunError) -> Self {
        let message = error.to_string();
        match error {
            RunError::Busy { .. } | RunError::Stopping => Self::unavailable(message),
            // Its client does not wait any more: nobody should be told to try again.
            RunError::Deadline => Self::new(StatusCode::GATEWAY_TIMEOUT, message),
            RunError::Refused(_) | RunError::TooManyRows { .. } => Self::bad(message),
            RunError::Failed(_) | RunError::Panicked | RunError::Overrun { .. } => {
                Self::internal(message)
            }
        }
    }
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> Self {
        let message = error.to_string();
        match error {
            FindError::UnknownModel { .. } | FindError::UnknownVersion { .. } => {
                Self::new(StatusCode::NOT_FOUND, message)
            }
            // A server that starts anew says so before the routers know: another one has the model.
            FindError::NotReady { .. } => Self {
                again: Again::AtOnce,
                ..Self::unavailable(message)
            },
            FindError::Failed { .. } => Self::unavailable(message),
        }
    }
}

impl From<PipelineError> for ApiError {
    fn from(error: PipelineError) -> Self {
        let code = match &error {
            PipelineError::Run(error) => return error.clone().into(),
            PipelineError::Input(InputError::Kind(_)) | PipelineError::None(_) => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            PipelineError::Input(InputError::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            PipelineError::Input(InputError::Undecodable(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            PipelineError::Input(InputError::Malformed(_)) => StatusCode::BAD_REQUEST,
            PipelineError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            PipelineError::Input(InputError::Internal(_)) | PipelineError::Output(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<Unreadable> for ApiError {
    fn from(error: Unreadable) -> Self {
        Self::internal(error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.message }).to_string();
        let json = [(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )];
        let mut response = (self.code, json, body).into_response();
        if self.code == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, self.again.value());
        }
        response
    }
}
