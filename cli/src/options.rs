//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::time::{Timeout, timeout};

/// What the exit codes mean, below every `--help` of a command that waits.
const CODES: &str = "Exit codes: 0 ready or promoted, 1 an error, 2 the command line, 3 aborted or failed, 4 paused or awaiting approval, 5 timed out (or, when not waited for, still under way).";

/// Looks at inference services, steers their rollouts and asks their models.
#[derive(Debug, Parser)]
#[command(name = "ortolan", version, propagate_version = true)]
pub struct Options {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster and namespace, as kubectl has it.
#[derive(Clone, Debug, Default, Args)]
pub struct Connection {
    /// The kubeconfig; KUBECONFIG or ~/.kube/config when absent
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; its current one when absent
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The namespace; the context's when absent
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List services, or look at one
    Get(Get),
    /// Show one service: weights, evidence, pods, failures
    Status(Status),
    /// Look at rollouts, steer them and take them back
    #[command(subcommand)]
    Rollout(Rollout),
    /// Wait until a service is ready, or its new revision promoted
    #[command(after_help = CODES)]
    Wait(Wait),
    /// Ask a service's model: finds a pod and forwards a port by itself
    Predict(Predict),
    /// Print the completions of a shell
    Completion(Completion),
}

/// `get`.
#[derive(Debug, Args)]
pub struct Get {
    /// Which services; all of the namespace when absent
    #[arg(value_parser = name)]
    pub names: Vec<String>,
    /// Those of all namespaces
    #[arg(short = 'A', long, conflicts_with = "names")]
    pub all_namespaces: bool,
    /// How to print them
    #[arg(short, long, value_enum)]
    pub output: Option<Listing>,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// The objects, as the API server has them.
    Json,
    /// The same as YAML.
    Yaml,
    /// More columns.
    Wide,
}

/// How one thing is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
}

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Which service
    #[arg(value_parser = name)]
    pub name: String,
    /// Go on looking: a live view in a terminal (q ends it); printed once where the output is none
    #[arg(short, long, conflicts_with = "output")]
    pub watch: bool,
    /// How to print it
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// `rollout`.
#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Follow a rollout to its end; the exit code says which
    #[command(after_help = CODES)]
    Status(RolloutStatus),
    /// Give the candidate all of the traffic, without further steps or approval
    #[command(after_help = CODES)]
    Promote(Steer),
    /// Take the candidate back
    #[command(after_help = CODES)]
    Abort(Steer),
    /// Let weights and timers stand still
    #[command(after_help = CODES)]
    Pause(Steer),
    /// Go on after a pause
    #[command(after_help = CODES)]
    Resume(Steer),
    /// Try a revision that failed once more
    #[command(after_help = CODES)]
    Retry(Steer),
    /// Write an earlier revision's model, server and pod back into the spec
    Undo(Undo),
    /// List the revisions that are kept
    History(History),
}

/// `rollout status`.
#[derive(Debug, Args)]
pub struct RolloutStatus {
    /// Which service
    #[arg(value_parser = name)]
    pub name: String,
    /// Wait for the end
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub watch: bool,
    /// How long to wait, such as 90s or 1h30m; 0 without an end
    #[arg(long, default_value = "0", value_parser = timeout, value_name = "TIME")]
    pub timeout: Timeout,
}

/// A command to a rollout.
#[derive(Debug, Args)]
pub struct Steer {
    /// Which service
    #[arg(value_parser = name)]
    pub name: String,
    /// The revision that is meant: the command is refused when it is no longer that one's turn. Of the status when absent
    #[arg(long)]
    pub revision: Option<String>,
    /// Wait for what comes of it
    #[arg(long)]
    pub wait: bool,
    /// How long to wait, such as 90s or 1h30m; 0 without an end
    #[arg(long, default_value = "10m", value_parser = timeout, value_name = "TIME", requires = "wait")]
    pub timeout: Timeout,
}

/// `rollout undo`.
#[derive(Debug, Args)]
pub struct Undo {
    /// Which service
    #[arg(value_parser = name)]
    pub name: String,
    /// The revision's name, its last part, or its number, as `history` shows them; the one that served before when absent
    #[arg(long, value_name = "REVISION")]
    pub to: Option<String>,
}

/// `rollout history`.
#[derive(Debug, Args)]
pub struct History {
    /// Which service
    #[arg(value_parser = name)]
    pub name: String,
    /// How to print it
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// `wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// Which service
    #[arg(value_parser = name)]
    pub name: String,
    /// What for
    #[arg(long = "for", value_enum, default_value_t = For::Ready)]
    pub goal: For,
    /// How long to wait, such as 90s or 1h30m; 0 without an end
    #[arg(long, default_value = "10m", value_parser = timeout, value_name = "TIME")]
    pub timeout: Timeout,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum For {
    /// The spec is what serves, with all of its pods.
    Ready,
    /// The spec's revision has all of the traffic.
    Promoted,
}

/// `predict`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["file", "json", "text"]))]
pub struct Predict {
    /// Which service
    #[arg(value_parser = name)]
    pub name: String,
    /// A photograph, a text, CSV or any file, as the model's pipeline takes it; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A request of the Open Inference Protocol (V2); - reads standard input
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// A text for a pipeline of texts; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub text: Vec<String>,
    /// The model's name; that of the service's spec when absent
    #[arg(long)]
    pub model: Option<String>,
    /// Ask a pod of this revision, past the routers: for a look at a candidate
    #[arg(long)]
    pub revision: Option<String>,
    /// What the file is; guessed by its name when absent
    #[arg(long, value_name = "TYPE", requires = "file")]
    pub content_type: Option<String>,
    /// How long an answer may take, such as 30s; 0 without an end
    #[arg(long, default_value = "60s", value_parser = timeout, value_name = "TIME")]
    pub timeout: Timeout,
    /// Print the answer as it came (JSON) or as YAML
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
}

/// `completion`.
#[derive(Debug, Args)]
pub struct Completion {
    /// For which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// The command line's grammar, under the name that the program was called by.
#[must_use]
pub fn grammar(is_plugin: bool) -> clap::Command {
    match is_plugin {
        true => Options::command().bin_name("kubectl ortolan"),
        false => Options::command(),
    }
}

/// Takes `oisvc/cats` for `cats`, as kubectl does.
fn name(text: &str) -> Result<String, String> {
    let name = match text.split_once('/') {
        None => text,
        Some((kind, name)) if is_ours(kind) => name,
        Some((kind, name)) => {
            return Err(format!(
                "{kind:?} is another kind: write {name}, or oisvc/{name}"
            ));
        }
    };
    match name {
        "" => Err("the name is empty: write the InferenceService's".into()),
        name => Ok(name.to_owned()),
    }
}

fn is_ours(kind: &str) -> bool {
    let kind = kind.split('.').next().unwrap_or_default();
    matches!(
        kind.to_ascii_lowercase().as_str(),
        "oisvc" | "inferenceservice" | "inferenceservices"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        grammar(false).debug_assert();
        grammar(true).debug_assert();
    }

    #[test]
    fn names_may_carry_their_kind() {
        for text in [
            "cats",
            "oisvc/cats",
            "inferenceservice/cats",
            "InferenceServices.serving.ortolan.dev/cats",
        ] {
            assert_eq!(name(text), Ok("cats".to_owned()));
        }
        for (text, says) in [
            ("", "is empty"),
            ("oisvc/", "is empty"),
            ("pod/cats", "write cats, or oisvc/cats"),
        ] {
            let error = name(text).expect_err(text);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_the_command_line() {
        for line in [
            "ortolan get cats -A",
            "ortolan status",
            "ortolan status cats -w -o json",
            "ortolan predict cats",
            "ortolan predict cats -f a.jpg --text b",
            "ortolan rollout promote cats --timeout 5m",
            "ortolan rollout status cats --timeout never",
            "ortolan wait cats --for=lunch",
        ] {
            assert!(Options::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        for line in [
            "ortolan get -A -o wide",
            "ortolan rollout status cats --watch=false",
            "ortolan rollout status -w cats",
            "ortolan rollout promote cats --wait --timeout 5m -n demo",
            "ortolan wait cats --for=promoted --timeout 0",
            "ortolan predict cats --text a --text b -o json",
            "ortolan completion zsh",
        ] {
            if let Err(error) = Options::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }
}
