//! Log lines on stderr, for people or as JSON. `ORTOLAN_LOG` (or `RUST_LOG`) filters them.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::{observe::ACCESS_LOG, options::LogFormat};

/// What goes wrong inside ONNX Runtime comes back as an error and is told from there; its own lines would let
/// any client with a wrong tensor fill the log.
///
/// A directive holds for every target that starts with its name, and ours start with `ort`, too.
const DEFAULT: &str = "info,ort=off,ortolan_server=info,ortolan_model=info";

/// Starts logging. A second call changes nothing. Who asks for the access log gets it whatever the filter says
/// of the rest.
pub fn start(format: LogFormat, access_log: bool) {
    let mut filter = EnvFilter::try_from_env("ORTOLAN_LOG")
        .or_else(|_| EnvFilter::try_from_default_env())
        .unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    if access_log && let Ok(directive) = format!("{ACCESS_LOG}=info").parse() {
        filter = filter.add_directive(directive);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An error only says that a subscriber is there already, as in tests.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
