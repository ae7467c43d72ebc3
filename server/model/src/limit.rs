//! How many bytes may come: as a model (`--max-model-bytes`), and below the downloads' folder
//! (`--max-cache-bytes`, which in a cluster is the pod's limit of ephemeral storage).
//!
//! Both are counted on the bytes that come, and the sentence of a refusal names the one that was passed.
//! Invariant: a kubelet ends a pod that has written more than its limit only when it looks, a minute
//! later and when the pod serves already; what is refused here never comes that far.

use std::fmt::Display;

use crate::{
    disk::{self, size},
    failure::{Failure, Reason},
};

/// Two bounds for what one step writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    model: u64,
    scratch: Option<Scratch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scratch {
    /// What the user allows.
    all: u64,
    /// What lies there already.
    used: u64,
}

impl Limit {
    /// `scratch`: `None` where only the disk itself is the bound.
    pub(crate) fn new(model: u64, scratch: Option<u64>) -> Self {
        let scratch = scratch.map(|all| Scratch { all, used: 0 });
        Self { model, scratch }
    }

    /// The bounds of the next step, when so many bytes lie in the downloads' folder and stay there.
    pub(crate) fn after(mut self, bytes: u64) -> Self {
        if let Some(scratch) = &mut self.scratch {
            scratch.used = scratch.used.saturating_add(bytes);
        }
        self
    }

    /// Refuses `bytes`, so many so far or in all. `subject` begins the sentence, and `verb` goes on: "has", "unpacks to".
    pub(crate) fn check(
        &self,
        subject: impl Display,
        verb: &str,
        bytes: u64,
    ) -> Result<(), Failure> {
        if bytes > self.model {
            return Err(Failure::new(
                Reason::ModelTooLarge,
                format!(
                    "{subject} {verb} at least {}, the limit is {} (--max-model-bytes)",
                    size(bytes),
                    size(self.model)
                ),
            ));
        }
        match self.scratch {
            Some(Scratch { all, used }) if used.saturating_add(bytes) > all => {
                let beside = match used {
                    0 => String::new(),
                    used => format!(" beside the {} of the download", size(used)),
                };
                Err(Failure::new(
                    Reason::OutOfSpace,
                    format!(
                        "no space for {subject}: it {verb} at least {}{beside}, and all together may take {} \
                         (--max-cache-bytes; in a pod its limit of ephemeral-storage); {}",
                        size(bytes),
                        size(all),
                        disk::NEEDS
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

impl From<u64> for Limit {
    fn from(model: u64) -> Self {
        Self::new(model, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(limit: Limit, bytes: u64) -> Option<(Reason, String)> {
        let refused = limit.check("m.tar", "has", bytes).err()?;
        Some((refused.reason, refused.message))
    }

    #[test]
    fn the_bound_that_is_passed_is_the_one_that_is_named() {
        let limit = Limit::new(1000, Some(500));
        assert_eq!(told(limit, 500), None);
        let (reason, sentence) = told(limit, 501).expect("a refusal");
        assert_eq!(reason, Reason::OutOfSpace);
        assert!(
            sentence.starts_with("no space for m.tar: it has at least 501 bytes, and all together may take 500 bytes (--max-cache-bytes;"),
            "{sentence}"
        );
        let (reason, sentence) = told(limit, 1001).expect("a refusal");
        assert_eq!(reason, Reason::ModelTooLarge);
        assert_eq!(
            sentence,
            "m.tar has at least 1001 bytes, the limit is 1000 bytes (--max-model-bytes)"
        );
    }

    #[test]
    fn what_lies_there_already_counts_and_is_named() {
        let limit = Limit::new(1000, Some(500)).after(400);
        assert_eq!(told(limit, 100), None);
        let (reason, sentence) = told(limit, 101).expect("a refusal");
        assert_eq!(reason, Reason::OutOfSpace);
        assert!(
            sentence.contains("at least 101 bytes beside the 400 bytes of the download"),
            "{sentence}"
        );
        assert_eq!(
            told(limit.after(u64::MAX), 0).map(|t| t.0),
            Some(Reason::OutOfSpace)
        );
        assert_eq!(told(Limit::from(7).after(u64::MAX), 7), None);
    }
}
