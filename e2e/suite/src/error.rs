//! Why a test fails, in words.

/// The result of everything here.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Why a test fails.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API server refused, or did not answer.
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
    /// The cluster's configuration cannot be read.
    #[error("KUBECONFIG: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// Something is no JSON of the expected form.
    #[error("unexpected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A request cannot be made.
    #[error("a request: {0}")]
    Http(#[from] http::Error),
    /// A program cannot be run.
    #[error("{0} cannot be run: {1}")]
    Spawn(String, std::io::Error),
    /// A program failed.
    #[error("{line} failed ({status}):\n{output}")]
    Command {
        /// The command.
        line: String,
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// Something did not happen in time.
    #[error("within {seconds} s this did not happen: {what}; at last: {last}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// How it was at the end.
        last: String,
    },
    /// Something is not as it should be.
    #[error("{0}")]
    Wrong(String),
}
