//! Why a server cannot serve its model: the one vocabulary of exit codes, termination messages,
//! log lines and, through the operator, of conditions.
//!
//! A code is part of the documented interface (`docs/exit-codes.md`): it never changes its meaning.

use std::fmt;

/// The cause, as the operator and the documentation name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Our own fault.
    Internal,
    /// The store does not resolve, refuses the connection, times out or answers 5xx. Transient.
    StoreUnavailable,
    /// The store answers that there is no such object, or the file does not exist.
    ModelNotFound,
    /// The store or the file system refuses access.
    AccessDenied,
    /// What was fetched is not what was expected.
    DigestMismatch,
    /// The archive holds what no archive of a model may hold, or no single model.
    ArchiveRefused,
    /// The file is no ONNX model that this runtime can run.
    InvalidModel,
    /// The execution provider that was asked for does not load.
    ProviderUnavailable,
    /// The disk is full.
    OutOfSpace,
    /// The model is larger than the limit.
    ModelTooLarge,
    /// ONNX Runtime's library is missing or of another version.
    RuntimeMissing,
    /// `model.yaml`, its labels or an option is wrong.
    InvalidConfig,
    /// The first run of the model failed.
    WarmUpFailed,
    /// The URI has a scheme that this server does not read.
    UnsupportedUri,
    /// The address to listen on is taken or not ours.
    PortInUse,
}

impl Reason {
    /// Every reason, in the order of the exit codes.
    pub const ALL: [Self; 15] = [
        Self::Internal,
        Self::StoreUnavailable,
        Self::ModelNotFound,
        Self::AccessDenied,
        Self::DigestMismatch,
        Self::ArchiveRefused,
        Self::InvalidModel,
        Self::ProviderUnavailable,
        Self::OutOfSpace,
        Self::ModelTooLarge,
        Self::RuntimeMissing,
        Self::InvalidConfig,
        Self::WarmUpFailed,
        Self::UnsupportedUri,
        Self::PortInUse,
    ];

    /// The process's exit code. 2 is left to the command line's own errors.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::StoreUnavailable => 10,
            Self::ModelNotFound => 11,
            Self::AccessDenied => 12,
            Self::DigestMismatch => 13,
            Self::ArchiveRefused => 14,
            Self::InvalidModel => 15,
            Self::ProviderUnavailable => 16,
            Self::OutOfSpace => 17,
            Self::ModelTooLarge => 18,
            Self::RuntimeMissing => 19,
            Self::InvalidConfig => 20,
            Self::WarmUpFailed => 21,
            Self::UnsupportedUri => 22,
            Self::PortInUse => 23,
        }
    }

    /// CamelCase, as it stands in the termination message and in conditions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "Internal",
            Self::StoreUnavailable => "StoreUnavailable",
            Self::ModelNotFound => "ModelNotFound",
            Self::AccessDenied => "AccessDenied",
            Self::DigestMismatch => "DigestMismatch",
            Self::ArchiveRefused => "ArchiveRefused",
            Self::InvalidModel => "InvalidModel",
            Self::ProviderUnavailable => "ProviderUnavailable",
            Self::OutOfSpace => "OutOfSpace",
            Self::ModelTooLarge => "ModelTooLarge",
            Self::RuntimeMissing => "RuntimeMissing",
            Self::InvalidConfig => "InvalidConfig",
            Self::WarmUpFailed => "WarmUpFailed",
            Self::UnsupportedUri => "UnsupportedUri",
            Self::PortInUse => "PortInUse",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason with the sentence that says what was wrong and what was expected.
/// Shown as `Reason: sentence`, on one line: this is the termination message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Failure {
    /// The cause.
    pub reason: Reason,
    /// One line for a person.
    pub message: String,
}

impl Failure {
    /// A failure whose message is put on one line.
    #[must_use]
    pub fn new(reason: Reason, message: impl AsRef<str>) -> Self {
        let message = message
            .as_ref()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        Self { reason, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_an_exit_code_of_its_own_and_none_takes_the_command_lines() {
        let mut codes: Vec<u8> = Reason::ALL.iter().map(|r| r.exit_code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(!codes.contains(&0) && !codes.contains(&2));
    }

    #[test]
    fn a_failure_is_one_line_that_starts_with_its_reason() {
        let f = Failure::new(Reason::InvalidModel, "a\n  b\tc");
        assert_eq!(f.to_string(), "InvalidModel: a b c");
    }
}
