//! A rollout that another version of the operator wrote into the status and that this one cannot read: an operator that was
//! downgraded in the middle of one.
//!
//! | the spec asks for | what follows |
//! |---|---|
//! | the candidate of that rollout | everything stays as it is ([`super::keep`]): the shares, the pods, and what the other version wrote, word for word. The condition says so. It goes on when a version comes that can read it |
//! | another revision, the stable one too | the rollout begins anew from the stable revision, as when the status was wiped; an event says so |
//!
//! Fields that this version does not know are no hindrance: they are dropped, for a state is written by the version that
//! decides. Where only the state is missing nothing is unreadable: the rollout begins anew.

use super::Planner;
use crate::{
    notice::Notice,
    observed::Observed,
    revision::RevisionName,
    rollout::{State, state::Phase},
};
use ortolan_crds::{RolloutPhase, RolloutStatus};

/// The reason in the condition and the event.
pub(super) const REASON: &str = "UnreadableRollout";

/// What is remembered of a rollout. `None`: nothing that this version can read.
pub(super) fn state(rollout: &RolloutStatus) -> Option<State> {
    let text = rollout.state.as_ref()?;
    match rollout.phase {
        RolloutPhase::Unreadable => None,
        _ => serde_json::from_str(text).ok(),
    }
}

fn unreadable(observed: &Observed) -> Option<&RolloutStatus> {
    let rollout = observed.service.status.as_ref()?.rollout.as_ref()?;
    (rollout.state.is_some() && state(rollout).is_none()).then_some(rollout)
}

/// Why nothing may be done: the candidate is one of a rollout that cannot be read.
pub(super) fn candidate(observed: &Observed, wanted: &RevisionName) -> Option<String> {
    let rollout = unreadable(observed)?;
    let candidate = rollout.candidate.as_deref()?;
    (candidate == wanted.as_str()).then(|| {
        format!(
            "another version of the operator wrote what is known of the rollout of {candidate}, and this one cannot read it: weights and pods stay as they are, and nobody watches the candidate. Install that version again, change the spec (back to the old one, say), or remove .status.rollout.state to begin anew"
        )
    })
}

impl Planner<'_> {
    /// Tells of a rollout that cannot be read and that the spec does not ask for: it is begun anew.
    pub(super) fn tell_of_what_is_forgotten(&mut self, began: &State) {
        if unreadable(self.observed).is_none() {
            return;
        }
        let stable = match (&began.stable, &began.phase) {
            (Some(stable), Phase::Stable) => format!("{stable} serves"),
            (Some(stable), _) => format!("it begins anew from {stable}"),
            (None, _) => "it begins anew".into(),
        };
        let message = format!(
            "another version of the operator wrote what was known of the rollout, and this one cannot read it: {stable}"
        );
        self.notices
            .push(Notice::warning("UnreadableRollout", message));
    }
}
