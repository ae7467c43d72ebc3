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

/// Says what is wrong with the command line, to the terminal and, as one line, to the termination
/// log. Help and version are asked for by people and leave the log alone. Gives the exit code.
#[must_use]
pub fn refuse(usage: &clap::Error) -> u8 {
    // Nothing can be done about a terminal that is gone.
    let _ = usage.print();
    if usage.use_stderr() {
        // The options did not parse, so that only the environment can name another file.
        let chosen = std::env::var_os("ORTOLAN_TERMINATION_LOG").map(PathBuf::from);
        let text = usage.render().to_string();
        let said: Vec<&str> = text
            .lines()
            .take_while(|line| !line.is_empty())
            .map(str::trim)
            .collect();
        let line = said.join(" ");
        let line = line.strip_prefix("error: ").unwrap_or(&line);
        if let Some(path) = termination_log(chosen.as_deref()) {
            let _ = std::fs::write(path, format!("Usage: {line}"));
        }
    }
    u8::try_from(usage.exit_code()).unwrap_or(2)
}

/// Ends the process at once, without the destructors of C++ libraries: ONNX Runtime may be loading
/// or running in another thread, and pulling its globals from under it ends in a signal instead of
/// the documented code. Nothing of ours waits in a buffer: logs are written line by line.
pub fn now(code: u8) -> ! {
    signal_hook::low_level::exit(code.into())
}
