//! Which gRPC status an error has.
//!
//! | what | code |
//! |---|---|
//! | unknown model or version | NOT_FOUND |
//! | a model that is not ready, a server that shuts down | UNAVAILABLE |
//! | a request that does not fit the model | INVALID_ARGUMENT |
//! | a full queue, as many requests as may be, a message over the limit | RESOURCE_EXHAUSTED |
//! | a deadline that passed | DEADLINE_EXCEEDED |
//! | loading and unloading that is switched off | PERMISSION_DENIED |
//! | loading and unloading that is not the clients' to do | FAILED_PRECONDITION |
//! | our fault, or ONNX Runtime's | INTERNAL |

use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

use ortolan_model::{Failure, Reason};

use crate::{
    admission::Crowded, catalog::FindError, infer::RunError, output::Unreadable,
    repository::ManageError,
};

/// Milliseconds until a client that retries by itself may try again: a queue empties in less.
const PUSHBACK: &str = "1000";
/// The same where nothing was begun and another server may have a place, or the model: the router asks another pod.
const AT_ONCE: &str = "0";

/// A request that does not fit.
pub(super) fn bad(sentence: impl Into<String>) -> Status {
    Status::invalid_argument(sentence)
}

/// No model for a request.
pub(super) fn not_found(error: &FindError) -> Status {
    let sentence = error.to_string();
    match error {
        FindError::UnknownModel { .. } | FindError::UnknownVersion { .. } => {
            Status::new(Code::NotFound, sentence)
        }
        FindError::NotReady { .. } => again(Code::Unavailable, sentence, AT_ONCE),
        FindError::Failed { .. } => Status::new(Code::Unavailable, sentence),
    }
}

/// No place for a request.
pub(super) fn crowded(crowded: Crowded) -> Status {
    again(Code::ResourceExhausted, crowded.to_string(), AT_ONCE)
}

/// Told with when to try again.
fn again(code: Code, sentence: String, pushback: &'static str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(
        "grpc-retry-pushback-ms",
        MetadataValue::from_static(pushback),
    );
    Status::with_metadata(code, sentence, metadata)
}

/// No outputs for a request.
pub(super) fn not_run(error: &RunError) -> Status {
    let code = match error {
        RunError::Busy { .. } => {
            return again(Code::ResourceExhausted, error.to_string(), PUSHBACK);
        }
        RunError::Stopping => Code::Unavailable,
        RunError::Deadline => Code::DeadlineExceeded,
        RunError::Refused(_) | RunError::TooManyRows { .. } => Code::InvalidArgument,
        RunError::Failed(_) | RunError::Overrun { .. } | RunError::Panicked => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// No load or unload for a request.
pub(super) fn not_changed(error: &ManageError) -> Status {
    let code = match error {
        ManageError::Off => Code::PermissionDenied,
        ManageError::NotExplicit(_) => Code::FailedPrecondition,
        ManageError::Unknown(_) => Code::NotFound,
        ManageError::Parameter(_) => Code::InvalidArgument,
        ManageError::Failed { failure, .. } => {
            return Status::new(blame(failure), error.to_string());
        }
    };
    Status::new(code, error.to_string())
}

/// A repository that cannot be read.
pub(super) fn not_managed(failure: &Failure) -> Status {
    Status::new(blame(failure), failure.to_string())
}

/// Whose fault it is: the model's, the moment's, or ours.
fn blame(failure: &Failure) -> Code {
    match failure.reason {
        Reason::Internal => Code::Internal,
        Reason::StoreUnavailable | Reason::OutOfSpace => Code::Unavailable,
        _ => Code::InvalidArgument,
    }
}

/// An output that cannot be read.
pub(super) fn unreadable(name: &str, error: &Unreadable) -> Status {
    Status::internal(format!("output {name:?}: {error}"))
}
