//! Whether a command makes sense now, and for which revision it is meant.
//!
//! Pure: the service as it was read goes in. The operator decides once more by what it knows then: a command carries
//! the revision, so one that comes too late hits nothing.

use kube::ResourceExt as _;
use ortolan_core::rollout::command::Verb;
use ortolan_crds::{InferenceService, RolloutPhase, RolloutStatus};

use crate::facts;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Command it, for this revision.
    Command(String),
    /// Nothing: it is so already. The revision, and a sentence.
    Already(String, String),
}

/// Why a command makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No operator has looked at it.
    #[error(
        "the operator has not looked at {0} yet: is it running? (`kubectl get pods -A -l app.kubernetes.io/name=ortolan`)"
    )]
    Unseen(String),
    /// No routers.
    #[error(
        "{0} has no rollout that could be steered: its traffic is not split, which takes routers (router.enabled=true in the chart); `ortolan rollout undo {0}` goes back to an earlier revision without them"
    )]
    NoRouters(String),
    /// Nothing is under way.
    #[error(
        "no rollout of {name} is under way: {stable} serves; a change of spec.model, spec.server or spec.pod begins one"
    )]
    NothingUnderWay {
        /// The service.
        name: String,
        /// What serves.
        stable: String,
    },
    /// It is over.
    #[error(
        "{candidate} failed and has no traffic any more; write `ortolan rollout retry {name}` to try it again, or change the spec"
    )]
    Failed {
        /// The service.
        name: String,
        /// What failed.
        candidate: String,
    },
    /// It ends.
    #[error(
        "{candidate} is being taken back; wait for the end (`ortolan rollout status {name}`), then write `ortolan rollout retry {name}`"
    )]
    Aborting {
        /// The service.
        name: String,
        /// What is taken back.
        candidate: String,
    },
    /// There is nothing to try again.
    #[error(
        "nothing of {name} failed (its rollout is at {phase}), so there is nothing to retry; `ortolan status {name}` shows more"
    )]
    NothingFailed {
        /// The service.
        name: String,
        /// Where it is.
        phase: String,
    },
    /// It runs.
    #[error(
        "the rollout of {name} is not paused (it is at {phase}), so there is nothing to resume"
    )]
    NotPaused {
        /// The service.
        name: String,
        /// Where it is.
        phase: String,
    },
    /// The spec says so.
    #[error("the rollout of {0} is paused by its spec: write `spec.rollout.paused: false`")]
    PausedBySpec(String),
    /// Another revision is meant.
    #[error(
        "the revision that {verb} would be for is {actual}, not {meant}; leave --revision out, or write --revision {actual}"
    )]
    OtherRevision {
        /// The verb.
        verb: String,
        /// What was written.
        meant: String,
        /// Whose turn it is.
        actual: String,
    },
}

/// Decides.
///
/// # Errors
/// A sentence with what to write instead.
pub fn decide(
    service: &InferenceService,
    verb: Verb,
    revision: Option<&str>,
) -> Result<Decision, Refusal> {
    let name = service.name_any();
    if service.status.is_none() {
        return Err(Refusal::Unseen(name));
    }
    let rollout = facts::rollout(service).ok_or_else(|| Refusal::NoRouters(name.clone()))?;
    let candidate = possible(&name, rollout, verb)?;
    if let Some(meant) = revision
        && meant != candidate
        && meant != facts::short(&name, &candidate)
    {
        let (verb, meant) = (verb.to_string(), meant.to_owned());
        return Err(Refusal::OtherRevision {
            verb,
            meant,
            actual: candidate,
        });
    }
    let already = match verb {
        Verb::Promote if rollout.phase == RolloutPhase::Promoting => {
            Some(format!("{candidate} is being promoted already"))
        }
        Verb::Pause if rollout.paused.as_deref() == Some("Commanded") => {
            Some(format!("the rollout of {candidate} is paused already"))
        }
        _ => None,
    };
    Ok(match already {
        Some(sentence) => Decision::Already(candidate, sentence),
        None => Decision::Command(candidate),
    })
}

/// The revision whose turn it is.
fn possible(name: &str, rollout: &RolloutStatus, verb: Verb) -> Result<String, Refusal> {
    let name = name.to_owned();
    let phase = facts::phase(rollout);
    let candidate = rollout.candidate.clone();
    match (rollout.phase, verb) {
        (RolloutPhase::Failed, Verb::Retry) => {
            candidate.ok_or(Refusal::NothingFailed { name, phase })
        }
        (_, Verb::Retry) => Err(Refusal::NothingFailed { name, phase }),
        (RolloutPhase::Failed, _) => Err(Refusal::Failed {
            name,
            candidate: candidate.unwrap_or_default(),
        }),
        (RolloutPhase::Aborting, _) => Err(Refusal::Aborting {
            name,
            candidate: candidate.unwrap_or_default(),
        }),
        (_, Verb::Resume) if candidate.is_some() => match rollout.paused.as_deref() {
            None => Err(Refusal::NotPaused { name, phase }),
            Some("Spec") => Err(Refusal::PausedBySpec(name)),
            Some(_) => Ok(candidate.unwrap_or_default()),
        },
        (RolloutPhase::Stable, _) => Err(nothing_under_way(name, rollout)),
        _ => candidate.ok_or_else(|| nothing_under_way(name, rollout)),
    }
}

fn nothing_under_way(name: String, rollout: &RolloutStatus) -> Refusal {
    let stable = rollout
        .stable
        .clone()
        .unwrap_or_else(|| "no revision".into());
    Refusal::NothingUnderWay { name, stable }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(rollout: Value) -> InferenceService {
        let object = json!({
            "apiVersion": "serving.ortolan.dev/v1alpha1", "kind": "InferenceService",
            "metadata": {"name": "cats", "namespace": "demo"},
            "spec": {"model": {"uri": "https://models.example.com/cats.onnx"}},
            "status": {"rollout": rollout},
        });
        serde_json::from_value(object).expect("a service")
    }

    fn at(phase: &str, paused: Option<&str>) -> InferenceService {
        let candidate = (phase != "Stable").then_some("cats-2");
        service(
            json!({"phase": phase, "stable": "cats-1", "candidate": candidate, "paused": paused}),
        )
    }

    #[test]
    fn a_command_is_for_the_candidate_or_for_what_failed() {
        use Verb::{Abort, Pause, Promote, Resume, Retry};
        for (phase, paused, verb) in [
            ("Preparing", None, Promote),
            ("Step", None, Promote),
            ("Step", Some("Inconclusive"), Promote),
            ("AwaitingApproval", None, Promote),
            ("Stopping", None, Abort),
            ("Shadowing", None, Abort),
            ("Promoting", None, Abort),
            ("Step", None, Pause),
            ("Step", Some("Inconclusive"), Pause),
            ("Step", Some("Spec"), Pause),
            ("Step", Some("Commanded"), Resume),
            ("Step", Some("Inconclusive"), Resume),
            ("Failed", None, Retry),
        ] {
            let decided = decide(&at(phase, paused), verb, None);
            assert_eq!(
                decided,
                Ok(Decision::Command("cats-2".into())),
                "{phase} {paused:?} {verb}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_to_write_instead() {
        use Verb::{Abort, Pause, Promote, Resume, Retry};
        for (phase, paused, verb, says) in [
            (
                "Stable",
                None,
                Promote,
                "no rollout of cats is under way: cats-1 serves; a change of spec.model",
            ),
            ("Stable", None, Abort, "no rollout of cats"),
            ("Stable", None, Resume, "no rollout of cats"),
            (
                "Stable",
                None,
                Retry,
                "nothing of cats failed (its rollout is at Stable)",
            ),
            ("Step", None, Retry, "nothing of cats failed"),
            ("Step", None, Resume, "is not paused (it is at Step)"),
            (
                "Step",
                Some("Spec"),
                Resume,
                "write `spec.rollout.paused: false`",
            ),
            (
                "Failed",
                None,
                Promote,
                "cats-2 failed and has no traffic any more; write `ortolan rollout retry cats`",
            ),
            ("Failed", None, Abort, "cats-2 failed"),
            (
                "Aborting",
                None,
                Pause,
                "cats-2 is being taken back; wait for the end",
            ),
            ("Aborting", None, Retry, "nothing of cats failed"),
        ] {
            let error = decide(&at(phase, paused), verb, None)
                .expect_err(phase)
                .to_string();
            assert!(error.contains(says), "{phase} {paused:?} {verb}: {error}");
        }
    }

    #[test]
    fn what_is_so_already_is_said_and_not_written_again() {
        for (phase, paused, verb) in [
            ("Promoting", None, Verb::Promote),
            ("Step", Some("Commanded"), Verb::Pause),
        ] {
            let decided = decide(&at(phase, paused), verb, None);
            assert!(
                matches!(&decided, Ok(Decision::Already(of, why)) if of == "cats-2" && why.contains("already")),
                "{decided:?}"
            );
        }
    }

    #[test]
    fn a_command_for_another_revision_is_refused() {
        let step = at("Step", None);
        for meant in ["cats-2", "2"] {
            assert_eq!(
                decide(&step, Verb::Abort, Some(meant)),
                Ok(Decision::Command("cats-2".into()))
            );
        }
        let error = decide(&step, Verb::Abort, Some("cats-1"))
            .expect_err("another")
            .to_string();
        assert!(
            error.contains("is cats-2, not cats-1; leave --revision out"),
            "{error}"
        );
    }

    #[test]
    fn without_a_status_or_routers_it_says_what_is_missing() {
        let mut service = at("Step", None);
        service.status = Some(ortolan_crds::InferenceServiceStatus::default());
        let error = decide(&service, Verb::Promote, None)
            .expect_err("no routers")
            .to_string();
        assert!(error.contains("router.enabled=true"), "{error}");
        service.status = None;
        let error = decide(&service, Verb::Promote, None)
            .expect_err("no status")
            .to_string();
        assert!(error.contains("is it running?"), "{error}");
    }
}
