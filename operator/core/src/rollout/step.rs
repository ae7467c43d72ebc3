//! One look at a rollout: count, obey commands, follow the spec, move on, route.
//!
//! Inputs: the policy, the state of before, what was observed, the time. Outputs: the state and the
//! [`Effects`]. Invariants: the weights sum to 100; the candidate's share rises at most once in a
//! look, only to what its ready pods can take, and falls only when it is taken back, its step was
//! edited, or it has no ready pod; the same inputs again change nothing, so that a look may be lost
//! or repeated anywhere.

use jiff::Timestamp;

use super::{
    clock::{Timer, passed},
    command::{Command, Verb},
    effects::Effects,
    evidence::{Counters, Evidence, Signal},
    observed::Observed,
    policy::{Approval, Policy, Strategy, Weight},
    state::{Failure, Pause, Phase, PromotionStage, State, Then},
    times,
};
use crate::{notice::Notice, revision::RevisionName};

/// Moves in one look, at most: more than the longest chain of phases that time alone does not hold up.
const MOST_MOVES: usize = 16;
/// So much of a command is remembered.
const COMMAND_LENGTH: usize = 200;

/// Decides. `state` is `None` when nothing is known of a rollout: then `stable` counts, the revision
/// that carries the mark.
#[must_use]
pub fn step(
    policy: &Policy,
    state: Option<State>,
    stable: Option<&RevisionName>,
    observed: &Observed,
    now: Timestamp,
) -> (State, Effects) {
    // The mark is written before the status: a status without a stable revision is the older one.
    let state = state.filter(|state| state.stable.is_some() || stable.is_none());
    let state = state.unwrap_or_else(|| anew(stable, observed, now));
    let mut turn = Turn {
        policy,
        observed,
        now,
        state,
        notices: Vec::new(),
    };
    turn.count();
    turn.run_timer();
    turn.obey();
    for _ in 0..MOST_MOVES {
        let before = turn.state.clone();
        turn.follow_spec();
        turn.advance();
        turn.run_timer();
        turn.route();
        if turn.state == before {
            break;
        }
    }
    let effects = turn.effects();
    (turn.state, effects)
}

/// Nothing is known: the next generation is one that no router has seen. Of a service that served before, routers may
/// follow a generation that was not heard of yet, and they count on under one that comes back: the time in milliseconds
/// is above whatever counted up from one.
fn anew(stable: Option<&RevisionName>, observed: &Observed, now: Timestamp) -> State {
    let mut state = State::new(stable.cloned(), now);
    let counted = observed
        .readings
        .iter()
        .filter_map(|reading| match &reading.counters {
            Counters::ByGeneration(generations) => generations.last_key_value().map(|(at, _)| *at),
            Counters::Whole(_) => None,
        });
    let seen = counted.chain(observed.followed).max();
    let unheard = stable.map_or(1, |_| u64::try_from(now.as_millisecond()).unwrap_or(1));
    state.generation = seen.map_or(1, |seen| seen + 1).max(unheard);
    state
}

/// One look: what is known, and what is decided so far.
pub(super) struct Turn<'a> {
    pub(super) policy: &'a Policy,
    pub(super) observed: &'a Observed,
    pub(super) now: Timestamp,
    pub(super) state: State,
    pub(super) notices: Vec<Notice>,
}

impl Turn<'_> {
    /// Begins a phase.
    pub(super) fn go(&mut self, phase: Phase) {
        self.state.phase = phase;
        self.state.timer = Timer::new(self.now);
    }

    /// The time in this phase, pauses left out.
    pub(super) fn waited(&self) -> std::time::Duration {
        self.state.timer.passed(self.now)
    }

    /// Whether weights and timers stand still.
    pub(super) fn frozen(&self) -> bool {
        let held = self.policy.paused || self.state.pause == Some(Pause::Commanded);
        self.policy.suspended || held && self.in_progress()
    }

    /// Whether a candidate moves forward.
    pub(super) fn in_progress(&self) -> bool {
        !matches!(
            self.state.phase,
            Phase::Stable | Phase::Aborting { .. } | Phase::Failed { .. }
        )
    }

    /// Whether the candidate is watched with traffic or copies of it.
    fn watched(&self) -> bool {
        use Phase::{AwaitingApproval, Promoting, Shadowing, Step};
        matches!(
            self.state.phase,
            Shadowing | Step { .. } | AwaitingApproval | Promoting { .. }
        )
    }

    pub(super) fn ready(&self, revision: Option<&RevisionName>) -> u32 {
        revision.map_or(0, |name| self.observed.ready(name))
    }

    /// Whether the service sleeps: nobody asks it anything, and it has no pods.
    pub(super) fn asleep(&self) -> bool {
        self.observed.load.replicas == 0 && self.ready(self.state.stable.as_ref()) == 0
    }

    fn count(&mut self) {
        if !self.in_progress() {
            return;
        }
        if let Some(evidence) = &mut self.state.evidence {
            let tolerated = self.policy.analysis.tolerated();
            evidence.observe(&self.observed.readings, tolerated, self.now);
            if let Some(drift) = self.observed.drift.clone() {
                let sentence = drift.sentence();
                if evidence.drifts(drift) {
                    self.notices.push(Notice::warning("ClassDrift", sentence));
                }
            }
        }
    }

    /// Timers stand still while the rollout does, and while routers are silent: time without data
    /// is no soak.
    fn run_timer(&mut self) {
        let silent = self.watched() && !self.observed.complete;
        let still = self.frozen() || silent || self.state.pause.is_some();
        self.state.timer.run(!still, self.now);
    }

    fn obey(&mut self) {
        let Some(text) = &self.observed.command else {
            return;
        };
        let text: String = text.chars().take(COMMAND_LENGTH).collect();
        if self.state.command.as_ref() == Some(&text) {
            return;
        }
        let parsed = text.parse::<Command>();
        self.state.command = Some(text);
        match parsed {
            Err(error) => self
                .notices
                .push(Notice::warning("InvalidCommand", error.to_string())),
            Ok(command) => {
                if let Err(why) = self.execute(&command) {
                    let Command { verb, revision, .. } = &command;
                    let message = format!("`{verb} {revision}` is refused: {why}");
                    self.notices
                        .push(Notice::warning("CommandRefused", message));
                }
            }
        }
    }

    fn execute(&mut self, command: &Command) -> Result<(), String> {
        if let Phase::Failed { revision, .. } = &self.state.phase {
            if command.verb != Verb::Retry {
                return Err(format!("{revision} failed; write retry to try it again"));
            }
            if *revision != command.revision {
                return Err(format!("the revision that failed is {revision}"));
            }
            let revision = revision.clone();
            self.begin(revision);
            return Ok(());
        }
        match &self.state.candidate {
            None => return Err("no rollout is under way".into()),
            Some(candidate) if *candidate != command.revision => {
                return Err(format!("the candidate is {candidate}"));
            }
            Some(_) => {}
        }
        if !self.in_progress() {
            return Err("the candidate is being taken back".into());
        }
        match command.verb {
            Verb::Promote => {
                self.state.promote = true;
                self.state.pause = None;
                let later = matches!(
                    self.state.phase,
                    Phase::Stopping | Phase::Preparing | Phase::Promoting { .. }
                );
                if !later {
                    self.approved();
                }
            }
            Verb::Abort => {
                let message = "abort was commanded";
                self.abort(Then::Fail(Failure::new("Aborted", message)));
            }
            Verb::Pause => self.state.pause = Some(Pause::Commanded),
            Verb::Resume if self.state.pause.is_none() => {
                return Err(match self.policy.paused {
                    true => "spec.rollout.paused is true; write false".into(),
                    false => "it is not paused".into(),
                });
            }
            Verb::Resume => {
                if self.state.pause.take() == Some(Pause::Inconclusive) {
                    self.state.timer = Timer::new(self.now);
                }
            }
            Verb::Retry => return Err("nothing failed".into()),
        }
        Ok(())
    }

    fn follow_spec(&mut self) {
        if self.policy.suspended {
            return;
        }
        let wanted = &self.observed.wanted;
        match &self.state.phase {
            Phase::Stable | Phase::Aborting { .. } => {}
            Phase::Failed { revision, .. } if revision == wanted => {}
            Phase::Failed { .. } => self.rest(),
            _ if self.state.candidate.as_ref() == Some(wanted) => {}
            _ => self.leave(wanted.clone()),
        }
    }

    /// The candidate is no longer wanted.
    fn leave(&mut self, wanted: RevisionName) {
        let message = format!("The spec asks for {wanted} now");
        self.notices
            .push(Notice::normal("RolloutReplaced", message));
        let stopped =
            self.policy.strategy == Strategy::Recreate && self.state.routed() == Weight::NONE;
        match stopped && self.state.stable.as_ref() != Some(&wanted) {
            // The old revision has stopped already: the next one starts instead.
            true => self.begin(wanted),
            false => self.abort(Then::Leave),
        }
    }

    /// Makes one move, if there is one to make.
    fn advance(&mut self) {
        if self.frozen() {
            return;
        }
        if self.watched()
            && let Some(failure) = self.against()
        {
            self.abort(Then::Fail(failure));
            return;
        }
        match self.state.phase.clone() {
            Phase::Stable => self.look_for_work(),
            Phase::Stopping => self.stopping(),
            Phase::Preparing => self.preparing(),
            Phase::Shadowing => self.shadowing(),
            Phase::Step { index, stage } => self.in_step(index, stage),
            Phase::AwaitingApproval => {
                if self.policy.approval == Approval::Automatic {
                    self.approved();
                }
            }
            Phase::Promoting { stage } => self.promoting(stage),
            Phase::Aborting { stage, then } => self.aborting(stage, then),
            Phase::Failed { .. } => {}
        }
    }

    fn look_for_work(&mut self) {
        let wanted = self.observed.wanted.clone();
        let over =
            |kept: &super::state::Kept| passed(kept.since, self.now) >= self.policy.rollback_window;
        if self.state.kept.as_ref().is_some_and(over) {
            self.state.kept = None;
        }
        if self.state.stable.as_ref() == Some(&wanted) {
            return;
        }
        match self.state.kept.take_if(|kept| kept.revision == wanted) {
            Some(_) => self.begin_back(wanted),
            None => self.begin(wanted),
        }
    }

    /// A candidate begins.
    fn begin(&mut self, candidate: RevisionName) {
        let stops = self.policy.strategy == Strategy::Recreate && self.state.stable.is_some();
        let signals = self.policy.analysis.signals.clone();
        self.reset(Some(candidate), &signals);
        self.go(match stops {
            // Asked before anything stops.
            true if self.policy.approval == Approval::Manual => Phase::AwaitingApproval,
            true => Phase::Stopping,
            false => Phase::Preparing,
        });
        self.announce(stops);
    }

    /// Somebody agreed, or nobody has to any more.
    fn approved(&mut self) {
        let stops = self.policy.strategy == Strategy::Recreate
            && self.state.phase == Phase::AwaitingApproval;
        self.state.promote = true;
        match stops {
            true => self.go(Phase::Stopping),
            false => self.promote(),
        }
    }

    /// A revision that was stable lately comes back: it is known, so nothing is tried.
    fn begin_back(&mut self, candidate: RevisionName) {
        let stops = self.policy.strategy == Strategy::Recreate && !self.asleep();
        self.reset(
            Some(candidate),
            &std::collections::BTreeSet::<Signal>::new(),
        );
        self.state.back = true;
        match stops {
            true => self.go(Phase::Stopping),
            false => self.promote(),
        }
        self.announce(stops);
    }

    fn announce(&mut self, stops: bool) {
        let names = (self.state.candidate.as_ref(), self.state.stable.as_ref());
        let message = match names {
            (Some(new), Some(old)) if stops => {
                format!("{old} stops before {new} starts: nothing serves in between")
            }
            (Some(new), Some(old)) => format!("{new} is to take over from {old}"),
            (Some(new), None) => format!("{new} is the first revision"),
            (None, _) => return,
        };
        self.notices.push(Notice::normal("RolloutStarted", message));
    }

    /// Forgets everything about a candidate.
    pub(super) fn reset(
        &mut self,
        candidate: Option<RevisionName>,
        signals: &std::collections::BTreeSet<Signal>,
    ) {
        self.state.evidence = candidate.as_ref().map(|_| {
            let mut evidence = Evidence::new(signals, self.state.generation, self.now);
            // What was counted so far is the baseline.
            evidence.observe(&self.observed.readings, 1.0, self.now);
            evidence
        });
        self.state.candidate = candidate;
        self.state.weight = Weight::NONE;
        self.state.pause = None;
        self.state.back = false;
        self.state.promote = false;
        self.state.lost = None;
        self.state.edge = None;
        self.state.run_edge = None;
        self.state.slo_edge = None;
        self.state.validation = None;
    }

    /// The stable revision serves, and nothing is under way.
    pub(super) fn rest(&mut self) {
        self.reset(None, &std::collections::BTreeSet::new());
        self.go(Phase::Stable);
    }

    /// Everything goes to the candidate.
    pub(super) fn promote(&mut self) {
        self.state.pause = None;
        self.tell_of_capacity();
        self.go(Phase::Promoting {
            stage: PromotionStage::PreScale,
        });
    }

    /// A candidate that serves fewer requests at the objective is promoted, and said so.
    fn tell_of_capacity(&mut self) {
        let of = |name: &Option<RevisionName>| {
            let name = name.as_ref()?;
            self.observed.per_replica.get(name).copied()
        };
        let (Some(new), Some(old)) = (of(&self.state.candidate), of(&self.state.stable)) else {
            return;
        };
        if new < times::LEAST_CAPACITY * old {
            let message = format!(
                "One replica of the candidate serves {new:.1} requests a second within the objective, one of the stable revision {old:.1}"
            );
            self.notices.push(Notice::warning("CapacityFalls", message));
        }
    }

    /// What speaks against the candidate.
    pub(super) fn against(&mut self) -> Option<Failure> {
        let candidate = self.state.candidate.clone()?;
        let health = self.observed.health.get(&candidate);
        if let Some(cause) = health.and_then(|health| health.failed()) {
            return Some(Failure::new(&cause.reason, &cause.message));
        }
        if let Some(failure) = self.lost_readiness(&candidate) {
            return Some(failure);
        }
        let confidence = self.policy.analysis.confidence;
        let evidence = self.state.evidence.as_ref()?;
        if let Some((signal, count)) = evidence.tripped() {
            let message =
                format!("{signal}: {count} of the candidate, while the stable revision is well");
            return Some(Failure::new("CandidateFails", &message));
        }
        evidence
            .is_against(confidence)
            .then(|| Failure::new("EvidenceAgainst", &evidence.why(confidence)))
    }

    fn lost_readiness(&mut self, candidate: &RevisionName) -> Option<Failure> {
        let lost = self.state.weight > Weight::NONE
            && self.observed.ready(candidate) == 0
            && !self.asleep();
        if !lost {
            self.state.lost = None;
            return None;
        }
        let since = *self.state.lost.get_or_insert(self.now);
        (passed(since, self.now) >= times::LOST).then(|| {
            let message = format!(
                "no pod of the candidate has been ready for {} s",
                times::LOST.as_secs()
            );
            Failure::new("LostReadiness", &message)
        })
    }
}

impl Failure {
    /// A reason and a sentence.
    #[must_use]
    pub fn new(reason: &str, message: &str) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
        }
    }
}
