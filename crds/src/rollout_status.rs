//! `status.rollout`: where a rollout stands and what is known of the candidate, in words for people, and what the
//! operator has to remember.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error as _};
use serde_json::Value;

use crate::shadow::ShadowStatus;

/// Where a rollout stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// What is going on.
    pub phase: RolloutPhase,
    /// How far the phase is: `PreScale`, `Shift`, `Soak`, `Analyse` of a step, `PreScale`, `Shift`, `Settle` of a
    /// promotion, `ScaleStable`, `ShiftBack`, `Drain` of an abort.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Since when it has been so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The revision that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<String>,
    /// The revision that is tried; after a failure the one that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// Which step, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// How many steps there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<i32>,
    /// The share that the candidate should have, in per cent; `status.traffic` is what the routers obey.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// Why it stands still: `Commanded`, `Inconclusive`, or `Spec` (spec.rollout.paused).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// The cause of a failure in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is going on in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Counts the changes of the traffic; routers count requests by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// The revision of before, which a change of the spec back to it brings back at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// How far the candidate agrees with the golden set, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<String>,
    /// What the routers copy, and to whom; absent while they copy nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowStatus>,
    /// What is known of the candidate; after a failure, what was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<RolloutEvidence>,
    /// What the operator remembers between two looks, as JSON: a text, since the API server would write numbers in its
    /// own way and keep an owner for each of its fields. Not for people, and not part of the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// What is going on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum RolloutPhase {
    /// The stable revision has the traffic.
    #[default]
    Stable,
    /// `Recreate`: the old revision's pods end.
    Stopping,
    /// The candidate's pods start; its signature and the golden set are looked at.
    Preparing,
    /// The candidate answers copies of requests.
    Shadowing,
    /// The candidate has a step's share of the traffic.
    Step,
    /// `promote` is waited for.
    AwaitingApproval,
    /// The candidate takes everything.
    Promoting,
    /// The candidate is taken back.
    Aborting,
    /// A revision failed; the stable one serves until the spec changes, or `retry`.
    Failed,
    /// Another version of the operator wrote something that this one cannot read. No part of the API: what was read is
    /// written as it was ([`RolloutStatus::state`] has all of it).
    #[serde(skip)]
    #[schemars(skip)]
    Unreadable,
}

/// Reads `status.rollout`. One that another version wrote, with a phase that this one does not know, say, must not hide the
/// whole InferenceService: it is kept word for word.
pub(crate) fn read<'de, D>(deserializer: D) -> Result<Option<RolloutStatus>, D::Error>
where
    D: Deserializer<'de>,
{
    let value = Option::<Value>::deserialize(deserializer)?;
    Ok(value.map(|value| {
        RolloutStatus::deserialize(&value).unwrap_or_else(|_| RolloutStatus::unreadable(&value))
    }))
}

/// Writes `status.rollout`; what could not be read is written as it was.
pub(crate) fn write<S>(rollout: &Option<RolloutStatus>, serializer: S) -> Result<S::Ok, S::Error>
where
    S: Serializer,
{
    match rollout {
        Some(RolloutStatus {
            phase: RolloutPhase::Unreadable,
            state: Some(word_for_word),
            ..
        }) => {
            let value: Value = serde_json::from_str(word_for_word).map_err(S::Error::custom)?;
            value.serialize(serializer)
        }
        rollout => rollout.serialize(serializer),
    }
}

impl RolloutStatus {
    fn unreadable(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Self {
            phase: RolloutPhase::Unreadable,
            stable: text("stable"),
            candidate: text("candidate"),
            message: text("message"),
            generation: value["generation"].as_i64(),
            state: Some(value.to_string()),
            ..Self::default()
        }
    }
}

/// What is known of a candidate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutEvidence {
    /// All of it in a sentence.
    pub summary: String,
    /// Requests that the candidate answered since the step began.
    pub requests: i64,
    /// Requests that a step needs.
    pub needed: i64,
    /// The E value, the mean over the signals: how much likelier the counts are if the candidate is worse. 1 when
    /// nothing is known.
    pub e_value: f64,
    /// The E value at which the candidate is taken back.
    pub limit: f64,
    /// The ConfigMap with examples of answers that differ, of this candidate; absent while there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub examples: Option<String>,
    /// How far the classes of the candidate's answers are from those of the stable revision's answers to the same requests.
    /// It is told, and takes no candidate back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftStatus>,
    /// What is tested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["signal"]))]
    pub signals: Vec<SignalStatus>,
}

/// One test of the evidence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignalStatus {
    /// What makes a request a bad one: `errors`, `slowerThanSlo`, `slowerThanStable`, `serviceTime`, `disagreement`.
    pub signal: String,
    /// This test's E value.
    pub e_value: f64,
    /// Of the candidate, since it got traffic.
    pub candidate: CountStatus,
    /// Of the stable revision, in the same time.
    pub stable: CountStatus,
    /// The rate of bad requests, 0 to 1, that the candidate is held against when the stable revision has no traffic:
    /// what that did before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_rate: Option<f64>,
}

/// How far the classes of two revisions' answers to the same requests are apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftStatus {
    /// The total variation distance: half of the sum over the classes of |candidate − stable|, as a share of the pairs; 0
    /// when both name every class as often.
    pub distance: f64,
    /// Pairs of answers.
    pub pairs: i64,
    /// Whether it was more than chance and the stable revision itself explain.
    pub notable: bool,
    /// The classes whose counts differ most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub classes: Vec<MovedStatus>,
}

/// How often both revisions named a class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MovedStatus {
    /// Its name or number; `none` for answers without a class, empty for all that are not counted by name.
    pub class: String,
    /// Answers of the stable revision.
    pub stable: i64,
    /// Answers of the candidate.
    pub candidate: i64,
}

/// Requests, and the bad ones of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountStatus {
    /// Requests that ended.
    pub requests: i64,
    /// Those of them that were bad.
    pub bad: i64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::InferenceServiceStatus;

    #[test]
    fn a_rollout_of_a_newer_version_is_kept_word_for_word_and_the_rest_is_read() {
        let rollout = json!({
            "phase": "Bargaining", "stable": "m-a", "candidate": "m-b", "generation": 7,
            "state": "{\"phase\":{\"bargaining\":{\"round\":2}}}", "offers": [{"weight": 3}],
        });
        let written = json!({"traffic": [{"revision": "m-a", "weight": 97}], "rollout": rollout});
        let status: InferenceServiceStatus = serde_json::from_value(written).expect("a status");
        let read = status.rollout.as_ref().expect("a rollout");
        assert_eq!(read.phase, RolloutPhase::Unreadable);
        assert_eq!(
            (read.stable.as_deref(), read.candidate.as_deref()),
            (Some("m-a"), Some("m-b"))
        );
        assert_eq!((status.traffic[0].weight, read.generation), (97, Some(7)));
        let again = serde_json::to_value(&status).expect("JSON");
        assert_eq!(again["rollout"], rollout);
    }

    #[test]
    fn a_rollout_of_this_version_is_read_and_written_as_it_is() {
        for rollout in [
            json!({"phase": "Step", "stage": "Soak", "generation": 3, "state": "{}"}),
            json!(null),
        ] {
            let status: InferenceServiceStatus =
                serde_json::from_value(json!({"rollout": rollout})).expect("a status");
            let again = serde_json::to_value(&status).expect("JSON");
            assert_eq!(again["rollout"], rollout);
        }
        let none: InferenceServiceStatus = serde_json::from_value(json!({})).expect("a status");
        assert_eq!(none.rollout, None);
    }
}
