//! What people are told: only what the conditions did not say before.

use ortolan_crds::InferenceServiceStatus;

use super::Planner;
use crate::{
    notice::Notice,
    observed::Observed,
    rollout::spec::Splitter,
    step::{Decision, Phase},
};

/// A warning, unless the condition said the same before.
pub(super) fn told(
    observed: &Observed,
    status: &InferenceServiceStatus,
    reason: &str,
    message: &str,
) -> Vec<Notice> {
    let ready = |status: &InferenceServiceStatus| {
        status
            .conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .map(|c| (c.reason.clone(), c.message.clone()))
    };
    let before = observed.service.status.as_ref().and_then(ready);
    if before == ready(status) {
        Vec::new()
    } else {
        vec![Notice::warning(reason, message)]
    }
}

impl Planner<'_> {
    /// What the conditions have to say that they did not say before.
    pub(super) fn tell(&mut self, decision: &Decision, status: &InferenceServiceStatus) {
        let cause = match &decision.phase {
            Phase::Starting(Some(cause))
            | Phase::Recovering(Some(cause))
            | Phase::RollingOut(Some(cause))
            | Phase::StartFailed(cause)
            | Phase::Moving {
                cause: Some(cause), ..
            }
            | Phase::Broken(cause) => Some((cause.reason.clone(), cause.message.clone())),
            // Where there are shares the rollout tells of it itself, when it takes the candidate back.
            Phase::RolloutFailed(cause) if self.splitter == Splitter::Nobody => Some((
                "RolloutFailed".into(),
                format!(
                    "revision {} failed with {}: {}",
                    self.wanted, cause.reason, cause.message
                ),
            )),
            _ => None,
        };
        if let Some((reason, message)) = cause {
            // Counts of ready pods in the condition change more often than the cause does.
            let before = self
                .observed
                .service
                .status
                .iter()
                .flat_map(|s| &s.conditions);
            let known = before
                .filter(|c| c.type_ == "Ready")
                .any(|c| c.reason == reason && c.message.starts_with(&message));
            if !known {
                self.notices.push(Notice::warning(&reason, message));
            }
        }
        let ready = |status: &InferenceServiceStatus| {
            status
                .conditions
                .iter()
                .find(|c| c.type_ == "Ready")
                .map(|c| c.reason.clone())
        };
        let before = self.observed.service.status.as_ref().and_then(ready);
        let after = ready(status);
        let is = |reason: &Option<String>, word: &str| reason.as_deref() == Some(word);
        if is(&after, "Suspended") && !is(&before, "Suspended") {
            self.notices
                .push(Notice::normal("Suspended", "suspended: all pods end"));
        }
        if is(&before, "Suspended") && !is(&after, "Suspended") {
            self.notices
                .push(Notice::normal("Resumed", "resumed: pods start again"));
        }
        if is(&after, "Recreating") && !is(&before, "Recreating") {
            let message = status
                .conditions
                .first()
                .map(|c| c.message.clone())
                .unwrap_or_default();
            self.notices.push(Notice::normal("Recreating", message));
        }
        if is(&after, "Serving") && before.is_some() && !is(&before, "Serving") && !decision.promote
        {
            let message = status
                .conditions
                .first()
                .map(|c| c.message.clone())
                .unwrap_or_default();
            self.notices.push(Notice::normal("Serving", message));
        }
    }
}
