//! The options of a server of several models.

use std::time::Duration;

use clap::{Args, ValueEnum};
use ortolan_model::Shape;

use crate::options::parse_duration;

/// The options of a server of several models.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Several models")]
pub struct RepositoryOptions {
    /// Whether MODEL_URI is a repository, NAME/VERSION/model.onnx, as Triton lays it out; auto looks.
    #[arg(long, value_enum, default_value = "auto", env = "ORTOLAN_REPOSITORY")]
    pub repository: IsRepository,

    /// Who decides what of a repository is loaded: none (everything, once, at the start), poll
    /// (everything, and what changes), explicit (what --load-model and clients name).
    #[arg(
        long,
        value_enum,
        visible_alias = "model-control-mode",
        default_value = "none",
        env = "ORTOLAN_MODEL_CONTROL"
    )]
    pub model_control: Control,

    /// How often --model-control poll looks.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_interval, env = "ORTOLAN_POLL_INTERVAL")]
    pub poll_interval: Duration,

    /// A model to load at the start with --model-control explicit; may be given several times, * is
    /// every one.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "ORTOLAN_LOAD_MODEL"
    )]
    pub load_model: Vec<String>,

    /// Let clients load and unload models (with --model-control explicit).
    #[arg(long, env = "ORTOLAN_MANAGEMENT_API")]
    pub management_api: bool,

    /// Be ready only once every model of the repository is; without it one is enough.
    #[arg(long, env = "ORTOLAN_STRICT_READINESS")]
    pub strict_readiness: bool,
}

/// Whether a URI is a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IsRepository {
    /// Its names tell.
    Auto,
    /// It is.
    Always,
    /// It is one model.
    Never,
}

/// Who decides what is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Control {
    /// Everything is, once.
    None,
    /// Everything is, and changes are followed.
    Poll,
    /// What somebody names.
    Explicit,
}

impl RepositoryOptions {
    /// What the URI's content is taken for. Only a repository can be polled or loaded from.
    #[must_use]
    pub fn shape(&self) -> Shape {
        match (self.repository, self.model_control) {
            (IsRepository::Never, _) => Shape::Single,
            (IsRepository::Always, _) | (_, Control::Poll | Control::Explicit) => Shape::Repository,
            (IsRepository::Auto, Control::None) => Shape::Auto,
        }
    }

    /// The repository may change while it is served.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.model_control != Control::None
    }
}

/// Shorter would look more than it serves.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < Duration::from_millis(100) {
        return Err(format!("{text:?} is too short: write 100ms or more"));
    }
    Ok(interval)
}
