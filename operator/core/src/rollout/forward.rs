//! The moves forward: from the first pod of a candidate to its promotion.

use super::{
    capacity::needed,
    evidence::{Evidence, guard},
    observed::{Golden, Signature},
    policy::{Approval, CanaryStep, OnInconclusive, Split, Strategy, Weight},
    state::{Failure, Kept, Pause, Phase, PromotionStage, Stage, Then},
    step::Turn,
};
use crate::notice::Notice;

/// What comes at a place in the steps.
enum Place {
    /// A step.
    Step(CanaryStep),
    /// A weight that stays.
    Held(Weight),
    /// No steps, or none any more.
    Over,
}

impl Turn<'_> {
    /// `Recreate`: nothing starts while a pod of the old revision is left.
    pub(super) fn stopping(&mut self) {
        let candidate = self.state.candidate.as_ref();
        let mut others = self.observed.health.iter();
        if !others.any(|(name, health)| Some(name) != candidate && health.pods > 0) {
            match self.state.back {
                true => self.promote(),
                false => self.go(Phase::Preparing),
            }
        } else if self.waited() >= self.policy.progress_deadline {
            self.too_late("the old revision's pods did not end");
        }
    }

    pub(super) fn preparing(&mut self) {
        let Some(candidate) = self.state.candidate.clone() else {
            return;
        };
        let first = self.state.stable.is_none();
        let health = self.observed.health.get(&candidate);
        // The first revision has none to go back to: its pods go on trying.
        if let Some(cause) = health.and_then(|health| health.failed()).filter(|_| !first) {
            let failure = Failure::new(&cause.reason, &cause.message);
            return self.abort(Then::Fail(failure));
        }
        if let Signature::Incompatible(difference) = &self.observed.signature
            && self.mixes_answers()
            && !first
        {
            let failure = Failure::new("SignatureIncompatible", difference);
            return self.abort(Then::Fail(failure));
        }
        if let Golden::Failed(how) = &self.observed.golden {
            self.state.validation = Some(how.clone());
            return self.abort(Then::Fail(Failure::new("ValidationFailed", how)));
        }
        let need = match first {
            true => self.observed.load.replicas.max(1),
            false => 1,
        };
        let ready = self.observed.ready(&candidate) >= need;
        let agrees = matches!(self.observed.golden, Golden::None | Golden::Passed(_));
        let fits = first || self.observed.signature != Signature::Unknown;
        if !(ready && agrees && fits) {
            let limit = match ready {
                true => self.policy.analysis.deadline,
                false => self.policy.progress_deadline,
            };
            if self.waited() >= limit && !first {
                self.too_late(match ready {
                    true => "the golden set or the signature could not be looked at",
                    false => "its pods were not ready",
                });
            }
            return;
        }
        if let Golden::Passed(how) = &self.observed.golden {
            self.state.validation = Some(how.clone());
            self.notices
                .push(Notice::normal("ValidationPassed", how.as_str()));
        }
        match &self.observed.signature {
            Signature::Widened(difference) => self
                .notices
                .push(Notice::normal("SignatureWidened", difference.as_str())),
            Signature::Incompatible(difference) if !first => self
                .notices
                .push(Notice::warning("SignatureChanged", difference.as_str())),
            _ => {}
        }
        match first {
            true => self.promoted(),
            false => self.prepared(),
        }
    }

    /// Whether both revisions answer requests at the same time. Where one takes over from the other at once, another
    /// signature may be what the user wants.
    const fn mixes_answers(&self) -> bool {
        matches!(self.policy.strategy, Strategy::Canary(_))
    }

    fn prepared(&mut self) {
        if self.state.promote {
            self.promote();
        } else if self.policy.shadow.is_some()
            && !self.asleep()
            && self.policy.strategy != Strategy::Recreate
        {
            self.begin_evidence();
            self.go(Phase::Shadowing);
        } else {
            self.begin_step(0);
        }
    }

    pub(super) fn shadowing(&mut self) {
        let compared = self
            .state
            .evidence
            .as_ref()
            .map_or(0, Evidence::compared_in_step);
        // Copies cost no user anything: as many as the hard guard needs, however few requests a step asks for.
        let needed = self.policy.analysis.min_requests.max(guard::BAD);
        if self.policy.shadow.is_none() || compared >= needed {
            self.state.pause = None;
            self.begin_step(0);
        } else if self.inconclusive(needed) {
            self.begin_step(0);
        }
    }

    fn place(&self, index: usize) -> Place {
        match &self.policy.strategy {
            Strategy::Canary(Split::Weight(weight)) => Place::Held(*weight),
            Strategy::Canary(Split::Steps(steps)) => {
                steps.get(index).copied().map_or(Place::Over, Place::Step)
            }
            Strategy::BlueGreen | Strategy::Recreate => Place::Over,
        }
    }

    fn begin_evidence(&mut self) {
        if let Some(evidence) = &mut self.state.evidence {
            evidence.begin_step();
        }
    }

    /// Goes to a step, or past the last one.
    fn begin_step(&mut self, index: usize) {
        match self.place(index) {
            Place::Over if self.policy.approval == Approval::Manual && !self.state.promote => {
                self.go(Phase::AwaitingApproval);
                let name = self.state.candidate.as_ref();
                let name = name.map_or("", |name| name.as_str());
                let message = format!("{name} waits for `promote`");
                self.notices
                    .push(Notice::normal("AwaitingApproval", message));
            }
            Place::Over => self.promote(),
            Place::Step(_) | Place::Held(_) => {
                self.begin_evidence();
                self.go(Phase::Step {
                    index,
                    stage: Stage::PreScale,
                });
            }
        }
    }

    pub(super) fn in_step(&mut self, index: usize, stage: Stage) {
        let last = match &self.policy.strategy {
            Strategy::Canary(Split::Steps(steps)) => steps.len().saturating_sub(1),
            _ => 0,
        };
        if index > last {
            // The steps were edited: the last one counts, and its weight is come to anew.
            return self.go(Phase::Step {
                index: last,
                stage: Stage::PreScale,
            });
        }
        let (weight, soak) = match self.place(index) {
            Place::Step(step) => (step.weight, Some(step.soak)),
            Place::Held(weight) => (weight, None),
            Place::Over => return self.begin_step(index),
        };
        if weight < self.state.weight {
            self.state.weight = weight;
        }
        let stage_to = |stage| Phase::Step { index, stage };
        match stage {
            Stage::PreScale => self.pre_scale(weight, stage_to(Stage::Shift)),
            _ if weight > self.state.weight => self.go(stage_to(Stage::PreScale)),
            Stage::Shift => {
                if self.followed() {
                    self.go(stage_to(Stage::Soak));
                }
            }
            Stage::Soak => {
                if soak.is_some_and(|soak| self.waited() >= soak) && self.observed.complete {
                    self.go(stage_to(Stage::Analyse));
                }
            }
            Stage::Analyse => self.analyse(index),
        }
    }

    /// Raises the weight when there are pods for it, never in the look in which the stage began.
    fn pre_scale(&mut self, weight: Weight, next: Phase) {
        if self.asleep() {
            if self.inconclusive(self.policy.analysis.min_requests) {
                self.promote();
            }
            return;
        }
        let risen = weight <= self.state.weight;
        let pods = risen || self.has_pods_for(weight);
        // Without the stable revision there is nothing to compare with: a step waits for it.
        let compared = self.ready(self.state.stable.as_ref()) > 0
            || matches!(self.state.phase, Phase::Promoting { .. });
        if !pods {
            if self.waited() >= self.policy.progress_deadline {
                self.too_late("there were not enough ready pods for its share of the traffic");
            }
        } else if compared && (risen || self.capacity_for(weight)) && !self.waited().is_zero() {
            self.raise(weight, next);
        }
    }

    /// Raises the weight, unless the votes of the blocks that close with it speak against that.
    fn raise(&mut self, weight: Weight, next: Phase) {
        let tolerated = self.policy.analysis.tolerated();
        if let Some(evidence) = &mut self.state.evidence {
            evidence.close(tolerated, self.now);
        }
        if let Some(failure) = self.against() {
            return self.abort(Then::Fail(failure));
        }
        self.state.weight = self.state.weight.max(weight);
        self.state.pause = None;
        self.go(next);
    }

    fn analyse(&mut self, index: usize) {
        let seen = self
            .state
            .evidence
            .as_ref()
            .map_or(0, Evidence::requests_in_step);
        let needed = self.policy.analysis.min_requests;
        let enough = seen >= needed && self.observed.complete;
        if enough {
            self.state.pause = None;
            self.begin_step(index + 1);
        } else if self.inconclusive(needed) {
            self.begin_step(index + 1);
        }
    }

    /// Waits for so many requests until the deadline, then does what the policy says; whether to go on.
    fn inconclusive(&mut self, needed: u64) -> bool {
        if self.state.pause.is_some() || self.waited() < self.policy.analysis.deadline {
            return false;
        }
        let message = format!(
            "Fewer than {needed} requests in {} s: too few to judge by",
            self.policy.analysis.deadline.as_secs()
        );
        match self.policy.analysis.on_inconclusive {
            OnInconclusive::Continue => {
                self.notices.push(Notice::warning("Inconclusive", message));
                return true;
            }
            OnInconclusive::Abort => {
                self.abort(Then::Fail(Failure::new("Inconclusive", &message)));
            }
            OnInconclusive::Pause => {
                self.state.pause = Some(Pause::Inconclusive);
                self.notices.push(Notice::warning("Inconclusive", message));
            }
        }
        false
    }

    pub(super) fn promoting(&mut self, stage: PromotionStage) {
        if self.asleep() {
            // Nobody is asked anything: the pointer moves, and no pod starts.
            return self.promoted();
        }
        let to = |stage| Phase::Promoting { stage };
        match stage {
            PromotionStage::PreScale => {
                self.pre_scale(Weight::ALL, to(PromotionStage::Shift));
            }
            PromotionStage::Shift => {
                if self.followed() {
                    self.go(to(PromotionStage::Settle));
                }
            }
            PromotionStage::Settle => {
                if self.waited() >= self.policy.analysis.settle
                    && self.followed()
                    && self.observed.complete
                {
                    self.promoted();
                }
            }
        }
    }

    /// The candidate is the stable revision from now on. Nothing is copied and nothing restarts.
    fn promoted(&mut self) {
        let Some(candidate) = self.state.candidate.clone() else {
            return;
        };
        let message = format!("{candidate} serves");
        self.notices.push(Notice::normal("Promoted", message));
        let old = self.state.stable.replace(candidate);
        self.state.kept = old.map(|revision| Kept {
            revision,
            since: self.now,
            replicas: match self.policy.strategy {
                Strategy::Recreate => 0,
                _ => self.observed.load.replicas,
            },
        });
        self.rest();
    }

    fn too_late(&mut self, what: &str) {
        let seconds = self.waited().as_secs();
        let message = format!("{what} within {seconds} s");
        self.abort(Then::Fail(Failure::new("DeadlineExceeded", &message)));
    }

    /// Whether the candidate's ready pods can take this share.
    fn has_pods_for(&self, weight: Weight) -> bool {
        self.state.candidate.as_ref().is_some_and(|name| {
            let each = self.observed.per_replica.get(name).copied();
            self.observed.ready(name) >= needed(weight, &self.load(), each)
        })
    }

    /// Whether they can, and those of the stable revision the rest, where that is known.
    pub(super) fn capacity_for(&self, weight: Weight) -> bool {
        let stable = self.state.stable.as_ref();
        let rest = stable.is_none_or(|name| {
            let each = self.observed.per_replica.get(name).copied();
            each.is_none() || self.observed.ready(name) >= needed(weight.rest(), &self.load(), each)
        });
        rest && self.has_pods_for(weight)
    }

    /// Whether the routers do what the state says.
    pub(super) fn followed(&self) -> bool {
        self.state.routed() == self.state.weight
            && self.observed.followed == Some(self.state.generation)
    }
}
