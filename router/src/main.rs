//! Entry point: options, logging, the router's life; the documented exit code.

use std::process::ExitCode;

use clap::Parser;
use ortolan_router::{options::Options, run};

fn main() -> ExitCode {
    let options = Options::parse();
    run::logging(&options);
    let ended = run::runtime(options.threads).and_then(|runtime| {
        let ended = runtime.block_on(run::run(options));
        // Nobody waits for connections of other protocols, or for a look at the API server.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!(exit_code = failure.exit_code(), "{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
