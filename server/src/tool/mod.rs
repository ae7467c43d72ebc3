//! The tools beside the server: `ortolan-server inspect`, `tune`, `bench` and `optimize`.
//!
//! ```text
//!  inspect   file ─► onnx::census ─► report          (--measure: sessions, their memory)
//!  tune      file ─► engines of all settings ─► table, knee, YAML
//!  bench     a server's URL ─► load ─► latency percentiles
//!  optimize  file ─► ONNX Runtime's own optimiser ─► file, and what it changed
//! ```
//!
//! Input: the command line. Output: a report on stdout, progress on stderr, a documented exit code. A tool is asked
//! for by its name as the very first argument; anything else starts the server, as it always did. A model in a file
//! called `bench` is written `./bench`.

use std::{
    ffi::OsString,
    io::{self, Write},
};

use clap::{Parser, Subcommand};
use ortolan_model::Failure;

use crate::{logging, options::LogFormat};

pub mod bench;
pub mod inputs;
pub mod inspect;
pub mod optimize;
pub mod source;
pub mod stats;
pub mod text;
pub mod tune;

#[derive(Debug, Parser)]
#[command(
    name = "ortolan-server",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    tool: Tool,
}

/// What can be done instead of serving.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Tell what is in a model: inputs, outputs, operators, parameters, memory, whether it can be batched.
    Inspect(inspect::Options),
    /// Measure which sessions, threads and batch size a model runs best with on this machine.
    Tune(tune::Options),
    /// Send load to a server and measure its latency, without leaving out the requests that had to wait.
    Bench(bench::Options),
    /// Optimise a model offline, with ONNX Runtime's own optimiser, and tell what was gained and changed.
    Optimize(optimize::Options),
}

/// Why a tool gives no report; shown as `Reason: sentence`.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// What a server would refuse as well.
    #[error(transparent)]
    Model(#[from] Failure),
    /// `--data`, `--body` or `--shape` cannot be used.
    #[error("BadData: {0}")]
    Data(String),
    /// The server to be measured does not answer, or no request succeeded.
    #[error("TargetUnavailable: {0}")]
    Target(String),
    /// The file to be written exists, or cannot be written.
    #[error("OutputRefused: {0}")]
    Output(String),
}

impl Refusal {
    /// The process's exit code, as docs/exit-codes.md lists it.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Model(failure) => failure.reason.exit_code(),
            Self::Data(_) => 40,
            Self::Target(_) => 41,
            Self::Output(_) => 42,
        }
    }
}

/// The names that start a tool.
const NAMES: [&str; 4] = ["inspect", "tune", "bench", "optimize"];

/// Runs the tool that the arguments ask for and gives the exit code; `None` when they ask for the server.
#[must_use]
pub fn run(arguments: &[OsString]) -> Option<u8> {
    let first = arguments.get(1)?.to_str()?;
    if !NAMES.contains(&first) {
        return None;
    }
    let tool = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli.tool,
        Err(usage) => {
            // Nothing can be done about a terminal that is gone.
            let _ = usage.print();
            return Some(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    logging::start(LogFormat::Text, false);
    let report = match tool {
        Tool::Inspect(options) => inspect::run(&options),
        Tool::Tune(options) => tune::run(&options),
        Tool::Bench(options) => bench::run(&options),
        Tool::Optimize(options) => optimize::run(&options),
    };
    Some(match report {
        Ok(report) => print(&report),
        Err(refusal) => {
            eprintln!("{refusal}");
            refusal.exit_code()
        }
    })
}

/// A reader that closes the pipe early (`| head`) has seen what it wanted.
fn print(report: &str) -> u8 {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", report.trim_end()).and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            eprintln!("Internal: cannot write the report: {error}");
            1
        }
    }
}

/// A bug or a machine that is out of everything.
fn internal(what: impl std::fmt::Display) -> Refusal {
    Failure::new(ortolan_model::Reason::Internal, what.to_string()).into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use ortolan_model::Reason;

    use super::*;

    #[test]
    fn only_the_first_argument_asks_for_a_tool() {
        let asked = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            run(&words)
        };
        for words in [
            &["ortolan-server"][..],
            &["ortolan-server", "./bench"],
            &["ortolan-server", "--http", "127.0.0.1:1", "bench"],
            &["ortolan-server", "model.onnx", "inspect"],
        ] {
            assert_eq!(asked(words), None, "{words:?}");
        }
        assert_eq!(asked(&["ortolan-server", "inspect", "--no-such"]), Some(2));
        assert_eq!(asked(&["ortolan-server", "optimize"]), Some(2), "no model");
    }

    #[test]
    fn every_tool_has_its_name_in_the_list_that_starts_it() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        let names: Vec<_> = cli.get_subcommands().map(|tool| tool.get_name()).collect();
        assert_eq!(names, NAMES);
    }

    #[test]
    fn a_tools_exit_codes_are_nobody_elses() {
        let own = [
            Refusal::Data(String::new()),
            Refusal::Target(String::new()),
            Refusal::Output(String::new()),
        ];
        for refusal in own {
            let code = refusal.exit_code();
            assert!(Reason::ALL.iter().all(|reason| reason.exit_code() != code));
        }
    }
}
