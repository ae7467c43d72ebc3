//! `ortolan rollout …` and `ortolan wait`.
//!
//! ```text
//! service ─▶ decide (pure) ─▶ command (annotation, at this resourceVersion) ─▶ wait: outcome (pure), again and again
//! revisions ─▶ undo (pure) ─▶ patch of spec.model, spec.server, spec.pod (at this resourceVersion)
//! ```

mod command;
pub mod decide;
pub mod history;
pub mod outcome;
pub mod undo;
mod wait;

use ortolan_core::rollout::command::Verb;

use crate::{
    cluster::Cluster,
    error::Error,
    exit::Exit,
    options::{For, Rollout, RolloutStatus, Wait},
};
use outcome::Goal;
use wait::{Patience, Waiting};

/// Does what was asked for.
///
/// # Errors
/// A sentence.
pub async fn run(cluster: &Cluster, rollout: &Rollout) -> Result<Exit, Error> {
    match rollout {
        Rollout::Status(options) => status(cluster, options).await,
        Rollout::Promote(options) => command::run(cluster, Verb::Promote, options).await,
        Rollout::Abort(options) => command::run(cluster, Verb::Abort, options).await,
        Rollout::Pause(options) => command::run(cluster, Verb::Pause, options).await,
        Rollout::Resume(options) => command::run(cluster, Verb::Resume, options).await,
        Rollout::Retry(options) => command::run(cluster, Verb::Retry, options).await,
        Rollout::Undo(options) => undo::run(cluster, options).await,
        Rollout::History(options) => history::run(cluster, options).await,
    }
}

async fn status(cluster: &Cluster, options: &RolloutStatus) -> Result<Exit, Error> {
    let patience = match options.watch {
        true => Patience::Until(options.timeout.0),
        false => Patience::None,
    };
    let waiting = Waiting {
        name: &options.name,
        goal: Goal::Promoted,
        revision: None,
        command: None,
        patience,
    };
    waiting.run(cluster).await
}

/// `ortolan wait`.
///
/// # Errors
/// A sentence.
pub async fn wait(cluster: &Cluster, options: &Wait) -> Result<Exit, Error> {
    let goal = match options.goal {
        For::Ready => Goal::Ready,
        For::Promoted => Goal::Promoted,
    };
    let patience = Patience::Until(options.timeout.0);
    let waiting = Waiting {
        name: &options.name,
        goal,
        revision: None,
        command: None,
        patience,
    };
    waiting.run(cluster).await
}
