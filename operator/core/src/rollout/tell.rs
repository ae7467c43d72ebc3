//! What a rollout's condition says.

use super::{
    effects::Tell,
    observed::{Golden, Signature},
    policy::Strategy,
    state::{Pause, Phase, PromotionStage, Stage},
    step::Turn,
};
use crate::revision::RevisionName;

impl Turn<'_> {
    /// The condition's reason and message.
    pub(super) fn tell(&self) -> Tell {
        let (reason, message) = if self.policy.suspended {
            let message = "spec.suspend is true: there are no pods".into();
            ("Suspended", message)
        } else if self.frozen() || self.state.pause.is_some() {
            ("Paused", self.tell_of_pause())
        } else {
            match &self.state.phase {
                Phase::Stable => ("Serving", format!("{} serves", self.stable())),
                Phase::Failed { revision, why } => {
                    let message = format!(
                        "{revision} failed, {} serves: {}",
                        self.stable(),
                        why.message
                    );
                    ("RolloutFailed", message)
                }
                Phase::AwaitingApproval => {
                    let message = format!("{} waits for `promote`", self.candidate());
                    ("AwaitingApproval", message)
                }
                _ => ("RollingOut", self.tell_of_progress()),
            }
        };
        Tell { reason, message }
    }

    fn tell_of_pause(&self) -> String {
        let why = match self.state.pause {
            Some(Pause::Inconclusive) => "too few requests to judge by",
            Some(Pause::Commanded) => "by command",
            None => "spec.rollout.paused is true",
        };
        format!("{} stays at {}: {why}", self.candidate(), self.state.weight)
    }

    fn tell_of_progress(&self) -> String {
        let (candidate, stable) = (self.candidate(), self.stable());
        let recreates = self.policy.strategy == Strategy::Recreate;
        match &self.state.phase {
            Phase::Stopping => {
                format!("Nothing serves until {stable} has ended and {candidate} is ready")
            }
            Phase::Preparing if recreates => format!("Nothing serves until {candidate} is ready"),
            Phase::Shadowing => format!("{candidate} answers copies of requests"),
            Phase::Step { index, stage } => {
                let what = match stage {
                    Stage::PreScale => "gets pods for more; it is",
                    Stage::Shift => "gets its share; it is",
                    Stage::Soak => "is watched",
                    Stage::Analyse => "needs more requests to be judged; it is",
                };
                let weight = self.state.weight;
                format!("Step {}: {candidate} {what} at {weight}", index + 1)
            }
            Phase::Promoting { stage } => {
                let what = match stage {
                    PromotionStage::PreScale => "gets pods for all of the traffic",
                    PromotionStage::Shift => "gets all of the traffic",
                    PromotionStage::Settle => "is watched with all of the traffic",
                };
                format!("{candidate} {what}")
            }
            Phase::Preparing if self.ready(self.state.candidate.as_ref()) > 0 => {
                match (&self.observed.golden, &self.observed.signature) {
                    (Golden::Unreached(why), _) => {
                        format!("{candidate} is ready, and the golden set cannot be run: {why}")
                    }
                    (Golden::Running, _) => {
                        format!("{candidate} is ready and answers the golden set")
                    }
                    (_, Signature::Unknown) if self.state.stable.is_some() => {
                        format!("{candidate} is ready; its inputs and outputs are not known yet")
                    }
                    _ => format!("{candidate} starts"),
                }
            }
            Phase::Aborting { .. } => format!("{stable} takes the traffic back from {candidate}"),
            _ => format!("{candidate} starts"),
        }
    }

    fn candidate(&self) -> &str {
        let name = self.state.candidate.as_ref();
        name.map_or("", RevisionName::as_str)
    }

    fn stable(&self) -> &str {
        let name = self.state.stable.as_ref();
        name.map_or("", RevisionName::as_str)
    }
}
