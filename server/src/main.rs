//! Entry point: a tool, or options, logging, the server's life; the documented exit code.

use ortolan_model::{Failure, Reason};
use ortolan_server::{exit, heap, logging, options::Options, serve, tool};

fn main() {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(code) = tool::run(&arguments) {
        exit::now(code);
    }
    heap::settle();
    let options = match Options::read() {
        Ok(options) => options,
        Err(usage) => exit::now(exit::refuse(&usage)),
    };
    logging::start(options.log_format, options.observe.access_log);
    let termination_log = options.termination_log.clone();
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Reason::Internal, format!("cannot start threads: {error}")))
        .and_then(|runtime| {
            let ended = runtime.block_on(serve::serve(options));
            // A load that is under way may take minutes more; nobody waits for it.
            runtime.shutdown_background();
            ended
        });
    exit::now(match ended {
        Ok(()) => 0,
        Err(failure) => exit::fail(&failure, termination_log.as_deref()),
    })
}
