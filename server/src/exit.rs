//! How the process ends: one log line, the same line in the termination log, the documented code.

use std::path::{Path, PathBuf};

use ortolan_model::failure::Failure;

/// Kubernetes reads a container's last words here.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Kubernetes keeps 4096 bytes of a termination message.
const MAX_MESSAGE: usize = 4000;

/// Where the last error goes, if anywhere.
#[must_use]
pub fn termination_log(chosen: Option<&Path>) -> Option<PathBuf> {
    match chosen {
        Some(path) => Some(path.to_path_buf()),
        None => Some(PathBuf::from(TERMINATION_LOG)).filter(|path| path.exists()),
    }
}

/// Says the failure to the log and the termination log; gives the exit code.
#[must_use]
pub fn fail(failure: &Failure, log: Option<&Path>) -> u8 {
    let line = failure.to_string();
    tracing::error!(exit_code = failure.reason.exit_code(), "{line}");
    if let Some(path) = termination_log(log) {
        let end = line.floor_char_boundary(MAX_MESSAGE);
        if let Err(error) = std::fs::write(&path, &line[..end]) {
            tracing::warn!(
                "cannot write the termination log {}: {error}",
                path.display()
            );
        }
    }
    failure.reason.exit_code()
}

/// Ends the process at once, without the destructors of C++ libraries: ONNX Runtime may be loading
/// or running in another thread, and pulling its globals from under it ends in a signal instead of
/// the documented code. Nothing of ours waits in a buffer: logs are written line by line.
pub fn now(code: u8) -> ! {
    signal_hook::low_level::exit(code.into())
}
