//! What to load and what to unload, decided from what a folder holds and what was made of it before.
//!
//! Pure. Inputs: the folder as it lies there, or why it cannot be read; what is known of each version.
//! Output: [`Step`]s in the order in which they are taken. Invariants: nothing is unloaded because a
//! folder cannot be read; what serves goes only once everything that is to take its place serves.

use std::collections::BTreeMap;

use ortolan_model::{Digest, Failure, Folder, Mark, Reason};

/// What is known of one version.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    /// Of the files that were tried last.
    pub(super) mark: Mark,
    /// Of what serves; `None`: nothing does.
    pub(super) serving: Option<Digest>,
    /// Why the last try failed; `None`: it did not.
    pub(super) failed: Option<Failure>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Load this version, new or changed. Those with this mark that serve already are not loaded again.
    Load(u64),
    /// Take this version away.
    Unload(u64),
}

/// The loads that are due.
pub(super) fn loads(seen: &Folder, known: &BTreeMap<u64, Known>) -> Vec<Step> {
    let due = seen.versions.iter().filter(|(version, mark)| {
        known.get(version).is_none_or(|known| {
            known.mark != **mark || known.failed.as_ref().is_some_and(is_worth_another_try)
        })
    });
    due.map(|(version, _)| Step::Load(*version)).collect()
}

/// The unloads that are due, once the loads were tried.
pub(super) fn unloads(seen: &Folder, known: &BTreeMap<u64, Known>) -> Vec<Step> {
    let serves = |version: &u64| {
        known
            .get(version)
            .is_some_and(|known| known.serving.is_some())
    };
    // A version that cannot take over leaves the old one where it is.
    if !seen.versions.keys().all(serves) {
        return Vec::new();
    }
    let gone = known
        .keys()
        .filter(|version| !seen.versions.contains_key(version));
    gone.map(|version| Step::Unload(*version)).collect()
}

/// The same files may load at another time: what failed was the machine, or room that others took.
fn is_worth_another_try(failure: &Failure) -> bool {
    matches!(
        failure.reason,
        Reason::Internal
            | Reason::StoreUnavailable
            | Reason::OutOfSpace
            | Reason::AccessDenied
            | Reason::ModelTooLarge
    )
}
