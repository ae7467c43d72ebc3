//! Entry point: options, logging, the server's life, the documented exit code.

use std::process::ExitCode;

use clap::Parser;
use ortolan_model::{Failure, Reason};
use ortolan_server::{exit, logging, options::Options, serve};

fn main() -> ExitCode {
    let options = Options::parse();
    logging::start(options.log_format);
    let termination_log = options.termination_log.clone();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let failure = Failure::new(Reason::Internal, format!("cannot start threads: {error}"));
            return exit::fail(&failure, termination_log.as_deref());
        }
    };
    let ended = runtime.block_on(serve::serve(options));
    // A load that is under way may take minutes more; nobody waits for it.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => exit::fail(&failure, termination_log.as_deref()),
    }
}
