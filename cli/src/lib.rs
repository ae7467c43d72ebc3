//! `ortolan`: inference services, their rollouts and their models, from a shell or a pipeline.
//!
//! ```text
//!  command line ─▶ Cluster (read) ─▶ decide, outcome, view, table (pure) ─▶ a text, an annotation, a patch ─▶ Exit
//! ```
//!
//! It reads as kubectl does, and writes only what a person could write by hand: the annotation with a command to a rollout, and with
//! `undo` the parts of the spec that make a revision. The operator decides. Each refusal is a sentence with what to
//! write instead; each end of a wait is an exit code of its own ([`Exit`]).

mod cluster;
mod error;
mod exit;
mod facts;
mod get;
mod near;
mod options;
mod output;
mod predict;
#[cfg(test)]
mod recorded;
mod rollout;
mod status;
mod table;
mod time;

use std::{ffi::OsString, path::Path};

use clap::FromArgMatches as _;

use cluster::Cluster;
pub use error::Error;
pub use exit::Exit;
use options::{Command, Options, grammar};

/// Does what the command line says; ends the process when it cannot be read, as clap does (2), and for `--help` (0).
///
/// # Errors
/// A sentence.
pub async fn run(arguments: Vec<OsString>) -> Result<Exit, Error> {
    let is_plugin = is_plugin(arguments.first());
    let matches = grammar(is_plugin).get_matches_from(arguments);
    let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let command = match options.command {
        Command::Completion(completion) => {
            let mut text = Vec::new();
            clap_complete::generate(completion.shell, &mut grammar(false), "ortolan", &mut text);
            output::print(&String::from_utf8_lossy(&text))?;
            return Ok(Exit::Done);
        }
        command => command,
    };
    let cluster = Cluster::connect(&options.connection).await?;
    match &command {
        Command::Get(options) => get::run(&cluster, options).await,
        Command::Status(options) => status::run(&cluster, options).await,
        Command::Rollout(rollout) => rollout::run(&cluster, rollout).await,
        Command::Wait(options) => rollout::wait(&cluster, options).await,
        Command::Predict(options) => predict::run(&cluster, options).await,
        Command::Completion(_) => Ok(Exit::Done),
    }
}

/// kubectl finds its plugins by their names: `kubectl ortolan` runs `kubectl-ortolan`.
fn is_plugin(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_stem());
    name.is_some_and(|name| name == "kubectl-ortolan")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectls_name_for_it_is_known() {
        for (program, is) in [
            ("kubectl-ortolan", true),
            ("/usr/local/bin/kubectl-ortolan", true),
            ("kubectl-ortolan.exe", true),
            ("ortolan", false),
            ("/opt/kubectl-ortolan/ortolan", false),
        ] {
            assert_eq!(is_plugin(Some(&program.into())), is, "{program}");
        }
        assert!(!is_plugin(None));
    }
}
