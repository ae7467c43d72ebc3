//! The way back: the stable revision gets its pods, then the traffic, then the candidate ends.

use super::{
    capacity::{affordable, needed},
    policy::{Strategy, Weight},
    state::{AbortStage, Phase, Then},
    step::Turn,
    times,
};
use crate::notice::Notice;

impl Turn<'_> {
    /// Takes the candidate back; at once where it never had traffic.
    pub(super) fn abort(&mut self, then: Then) {
        if let Then::Fail(failure) = &then {
            let name = self.state.candidate.as_ref();
            let name = name.map_or("", |name| name.as_str());
            let message = format!("{name} is taken back: {}", failure.message);
            let notice = Notice::warning(&failure.reason, message);
            self.notices.push(notice);
        }
        self.state.pause = None;
        self.state.promote = false;
        let untouched = self.state.routed() == Weight::NONE && self.state.weight == Weight::NONE;
        if self.state.stable.is_none() || untouched && self.policy.strategy != Strategy::Recreate {
            return self.aborted(then);
        }
        self.go(Phase::Aborting {
            stage: AbortStage::ScaleStable,
            then,
        });
    }

    pub(super) fn aborting(&mut self, stage: AbortStage, then: Then) {
        match stage {
            AbortStage::ScaleStable => {
                if self.scaled_back() {
                    self.state.weight = Weight::NONE;
                    let stage = AbortStage::ShiftBack;
                    self.go(Phase::Aborting { stage, then });
                }
            }
            AbortStage::ShiftBack => {
                let patient = self.policy.counts && self.waited() >= times::PATIENCE;
                if self.followed() || patient {
                    let stage = AbortStage::Drain;
                    self.go(Phase::Aborting { stage, then });
                }
            }
            AbortStage::Drain => {
                if self.waited() >= times::DRAIN || self.asleep() {
                    self.aborted(then);
                }
            }
        }
    }

    /// Hands back as much as the stable revision's ready pods can take; whether that is all.
    fn scaled_back(&mut self) -> bool {
        let Some(stable) = self.state.stable.clone() else {
            return true;
        };
        let each = self.observed.per_replica.get(&stable).copied();
        let ready = self.observed.ready(&stable);
        let patient = self.waited() < times::PATIENCE;
        if self.policy.strategy == Strategy::Recreate {
            // The devices are the candidate's until its last pod is gone.
            self.state.weight = Weight::NONE;
            let back = ready >= needed(Weight::ALL, &self.load(), each);
            return back || self.asleep() || ready > 0 && !patient;
        }
        if self.ready(self.state.candidate.as_ref()) == 0 || ready > 0 && !patient {
            return true;
        }
        let rest = affordable(ready, &self.load(), each).rest();
        self.state.weight = self.state.weight.min(rest);
        self.state.weight == Weight::NONE
    }

    fn aborted(&mut self, then: Then) {
        match then {
            Then::Leave => self.rest(),
            Then::Fail(why) => {
                let Some(revision) = self.state.candidate.take() else {
                    return self.rest();
                };
                self.state.weight = Weight::NONE;
                self.state.lost = None;
                self.go(Phase::Failed { revision, why });
            }
        }
    }
}
