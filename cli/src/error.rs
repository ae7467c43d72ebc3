//! What goes wrong, in sentences: what it was, and what to write instead.

use kube::config::KubeconfigError;

/// What goes wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}; write --kubeconfig FILE, or set KUBECONFIG")]
    Kubeconfig(#[from] KubeconfigError),
    /// Neither a kubeconfig nor a pod's own account.
    #[error(
        "no cluster is known here: write --kubeconfig FILE, set KUBECONFIG, or make ~/.kube/config ({0})"
    )]
    NoCluster(#[from] kube::config::InferConfigError),
    /// A context that the kubeconfig has not.
    #[error("the kubeconfig has no context {name}{meant}; it has: {known}")]
    Context {
        /// What was written.
        name: String,
        /// What may have been meant.
        meant: String,
        /// What there is.
        known: String,
    },
    /// The client cannot be made.
    #[error("no connection to the API server can be made: {0}")]
    Client(#[source] kube::Error),
    /// The API server says no, or nothing.
    #[error("{}", Self::of_api(.doing, .source))]
    Api {
        /// What was to be done, as in "while …".
        doing: String,
        /// Its answer.
        source: kube::Error,
    },
    /// The cluster does not know the kind.
    #[error(
        "the cluster knows no InferenceServices: install Ortolan first (helm install ortolan charts/ortolan -n ortolan-system --create-namespace), or choose another cluster with --context"
    )]
    NotInstalled,
    /// No service of that name.
    #[error("there is no InferenceService {name} in namespace {namespace}{meant}")]
    NoService {
        /// What was written.
        name: String,
        /// Where.
        namespace: String,
        /// What may have been meant, or where to look.
        meant: String,
    },
    /// An object of another version.
    #[error(
        "InferenceService {name} cannot be read by this version of ortolan ({why}): take the one of the operator's release"
    )]
    Unreadable {
        /// Which.
        name: String,
        /// What was odd.
        why: String,
    },
    /// A command that makes no sense now.
    #[error("{0}")]
    Refused(String),
    /// Another writer was faster, again and again.
    #[error(
        "InferenceService {0} changes faster than it can be written: somebody else writes to it all the time; try again"
    )]
    Conflict(String),
    /// A prediction that did not come to be.
    #[error(transparent)]
    Predict(#[from] crate::predict::Error),
    /// Standard output, or the terminal.
    #[error("the output cannot be written: {0}")]
    Output(#[from] std::io::Error),
    /// What cannot be shown as JSON or YAML.
    #[error("the output cannot be made: {0}")]
    Format(String),
}

impl Error {
    /// Of the API server, while doing something.
    pub fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Api { doing, source }
    }

    /// The HTTP code of an answer of the API server.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api {
                source: kube::Error::Api(status),
                ..
            } => Some(status.code),
            _ => None,
        }
    }

    /// Whether it may be gone when it is tried again: no answer, or one that blames the server or the load.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Api {
                source: kube::Error::Api(status),
                ..
            } => status.code >= 500 || status.code == 429,
            Self::Api { .. } => true,
            _ => false,
        }
    }

    fn of_api(doing: &str, source: &kube::Error) -> String {
        match source {
            kube::Error::Api(status) => match status.code {
                401 => format!(
                    "the API server does not know you while {doing}: sign in again, or choose another --context"
                ),
                403 => format!(
                    "you may not do that, while {doing}: {}; ask for the role `edit` (to look: `view`) of the namespace",
                    status.message
                ),
                _ => format!("the API server refuses, while {doing}: {}", status.message),
            },
            other => format!(
                "the API server does not answer, while {doing}: {}; is the right --context chosen, and the cluster up?",
                chain(other)
            ),
        }
    }
}

/// An error with all of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
