//! Exit codes, so that a pipeline can tell what became of a rollout. They are documented in docs/cli.md and never change.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; of a wait: ready, or promoted.
    Done,
    /// It could not be done; the sentence on standard error says why.
    Error,
    /// The rollout was aborted, or the revision failed.
    Failed,
    /// The rollout is paused, or waits for approval: somebody has to do something.
    Waiting,
    /// The time is over, or it was not to be waited for.
    TimedOut,
}

impl Exit {
    /// As a number. 2 is the command line's, which clap gives.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Failed => 3,
            Self::Waiting => 4,
            Self::TimedOut => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
