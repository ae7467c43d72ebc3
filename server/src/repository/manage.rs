//! Loading and unloading by request: the way in for every protocol.

use std::sync::Arc;

use ortolan_model::{Failure, Reason};

use super::Keeper;
use crate::app::App;

/// Why a load or unload was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManageError {
    /// 403: it is switched off.
    #[error(
        "loading and unloading by request is switched off; start the server with --management-api to allow it"
    )]
    Off,
    /// 409: somebody else decides what is loaded.
    #[error(
        "this server loads {0}; start it on a repository with --model-control explicit to load and unload by request"
    )]
    NotExplicit(&'static str),
    /// 400: a load that brings its own configuration or files.
    #[error(
        "the parameter {0:?} is not read: a model is loaded from the repository, as its files there say; \
         change them and load it again"
    )]
    Parameter(String),
    /// 404: the repository holds no such model.
    #[error("the repository holds no model {0:?}")]
    Unknown(String),
    /// The model cannot be loaded; what served before serves on.
    #[error("the model {name:?} was not loaded: {failure}")]
    Failed {
        /// The model's name.
        name: String,
        /// Why.
        failure: Failure,
    },
}

/// Loads a model by request, whatever protocol it came over; `parameters` are the names of what the
/// request says besides.
///
/// # Errors
/// Why it was not loaded.
pub async fn load<'a>(
    app: &Arc<App>,
    name: &str,
    mut parameters: impl Iterator<Item = &'a str>,
) -> Result<(), ManageError> {
    if let Some(parameter) = parameters.next() {
        return Err(ManageError::Parameter(parameter.to_owned()));
    }
    let (app, name) = (Arc::clone(app), name.to_owned());
    whole(async move { keeper(&app)?.load(&app, &name).await }).await
}

/// Unloads a model by request, whatever protocol it came over.
///
/// # Errors
/// Why it was not unloaded.
pub async fn unload(app: &Arc<App>, name: &str) -> Result<(), ManageError> {
    let (app, name) = (Arc::clone(app), name.to_owned());
    whole(async move { keeper(&app)?.unload(&app, &name).await }).await
}

/// A client that leaves does not stop a change half way.
async fn whole(
    change: impl Future<Output = Result<(), ManageError>> + Send + 'static,
) -> Result<(), ManageError> {
    match tokio::spawn(change).await {
        Ok(changed) => changed,
        Err(error) => Err(ManageError::Failed {
            name: "that was named".to_owned(),
            failure: Failure::new(Reason::Internal, format!("the change stopped: {error}")),
        }),
    }
}

fn keeper(app: &App) -> Result<&Keeper, ManageError> {
    app.repository()
        .ok_or(ManageError::NotExplicit("one model"))
}
