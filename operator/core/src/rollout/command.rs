//! Commands: the annotation `serving.ortolan.dev/command: <verb> <revision> <nonce>`.
//!
//! A command names the revision that it is meant for, so that one that comes late cannot hit another,
//! and carries a nonce, so that it is obeyed once.

use std::{fmt, str::FromStr};

use crate::revision::RevisionName;

/// What can be commanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Go to 100 % without further steps or approval.
    Promote,
    /// Take the candidate back.
    Abort,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Try a failed revision again.
    Retry,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry => "retry",
        })
    }
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What to do.
    pub verb: Verb,
    /// The revision that it is meant for.
    pub revision: RevisionName,
    /// Makes it another command than the one before.
    pub nonce: String,
}

/// Why a command cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not three words.
    #[error(
        "the command `{0}` is not of the form `<verb> <revision> <nonce>`; write for example `promote {1} 1`"
    )]
    Form(String, &'static str),
    /// A verb that there is not.
    #[error("the command's verb is `{0}`; write promote, abort, pause, resume or retry")]
    Verb(String),
}

impl FromStr for Command {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [verb, revision, nonce] = words[..] else {
            return Err(Error::Form(text.into(), "m-1a2b3c4d"));
        };
        let verb = match verb {
            "promote" => Verb::Promote,
            "abort" => Verb::Abort,
            "pause" => Verb::Pause,
            "resume" => Verb::Resume,
            "retry" => Verb::Retry,
            other => return Err(Error::Verb(other.into())),
        };
        Ok(Self {
            verb,
            revision: RevisionName::new(revision),
            nonce: nonce.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_verb_a_revision_and_a_nonce() {
        let verbs = [
            Verb::Promote,
            Verb::Abort,
            Verb::Pause,
            Verb::Resume,
            Verb::Retry,
        ];
        for verb in verbs {
            let command: Command = format!("{verb} m-1a2b3c4d 17").parse().expect("it is read");
            assert_eq!(command.verb, verb);
            assert_eq!(command.revision.as_str(), "m-1a2b3c4d");
            assert_eq!(command.nonce, "17");
        }
    }

    #[test]
    fn what_cannot_be_read_says_what_to_write() {
        for (text, says) in [
            ("", "write for example `promote m-1a2b3c4d 1`"),
            ("promote", "<verb> <revision> <nonce>"),
            ("promote m-1 2 3", "`promote m-1 2 3`"),
            ("Promote m-1 2", "verb is `Promote`; write promote, abort"),
        ] {
            let error = text
                .parse::<Command>()
                .expect_err("it is refused")
                .to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
