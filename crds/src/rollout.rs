//! `spec.rollout`: how a new revision takes over. A change restarts nothing.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{schema, shadow::Shadow};

/// How a new revision takes over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.steps) || !has(self.weight)")
        .message("steps move the traffic by themselves and weight sets it by hand: write one of the two"),
    validation = Rule::new("!has(self.strategy) || self.strategy == 'Canary' || (!has(self.steps) && !has(self.weight))")
        .message("steps and weight belong to strategy Canary: leave them out, or write strategy: Canary"),
    validation = Rule::new("!has(self.strategy) || self.strategy != 'Recreate' || !has(self.shadow)")
        .message("with strategy Recreate the revisions never run at the same time, so their answers cannot be compared: leave shadow out"),
)]
pub struct Rollout {
    /// `Canary` when absent; `BlueGreen` where the platform has no routers, and with `routing.provider: GatewayAPI`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// `true` freezes the weights and timers of a rollout under way. (`spec.suspend` is another thing: no pods.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// `Canary`: the candidate's shares, one after the other. 5 % for 2 minutes, 25 % for 2 minutes and 50 % for 5
    /// minutes when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(
        validation = Rule::new("self.map(step, step.weight).isSorted() && self.all(a, self.exists_one(b, a.weight == b.weight))")
            .message("each step's weight must be larger than that of the step before it, such as 5, 25, 50"),
    )]
    pub steps: Vec<Step>,
    /// `Canary`: the candidate's share in per cent, instead of steps. It stays until this field is changed, or until
    /// `promote` is commanded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 0 && self <= 100")
            .message("write a share of the traffic from 0 to 100"),
    )]
    pub weight: Option<i32>,
    /// `Manual`: a rollout that passed its steps waits for the command `promote`. `Automatic` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// How the evidence is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// Requests whose answers are known, asked before any user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// Copies of requests, whose answers are compared before the candidate gets requests of its own, and as long as it
    /// does not have all of them. Nothing is copied when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// How long the old revision is kept after a promotion: a change of the spec back to it brings it back without
    /// steps. Its pods stay for 10 minutes of that. 1h when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new(schema::DURATION)
            .message("write a duration in hours, minutes and seconds, such as 1h or 10m"),
    )]
    pub rollback_window: Option<String>,
    /// How many revisions are kept beside those that have pods; 5 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 0 && self <= 100")
            .message("write a number from 0 to 100"),
    )]
    pub revision_history_limit: Option<i32>,
}

/// One step of a canary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The candidate's share of the traffic in per cent.
    #[x_kube(
        validation = Rule::new("self >= 1 && self <= 100")
            .message("write a share of the traffic from 1 to 100"),
    )]
    pub weight: i32,
    /// How long it is watched with this share at least.
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(
        validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$')")
            .message("write a duration in hours, minutes and seconds, such as 2m or 1m30s"),
    )]
    pub soak: String,
}

/// Requests whose answers are known (a golden set).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// The file, JSON lines, over `https://` or `http://`; the operator fetches it, without credentials. A file that
    /// changes gets a new address.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(
        validation = Rule::new("self.matches('^https?://[^/?#@ ]+(/[^ ]*)?$')")
            .message("write http(s)://host[:port]/path of a JSONL file, without spaces, user name or password"),
    )]
    pub uri: String,
    /// The share of answers that has to agree; 0.99 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self > 0.0 && self <= 1.0")
            .message("write a share above 0 and up to 1, such as 0.99"),
    )]
    pub min_agreement: Option<f64>,
}

impl Validation {
    /// The share of answers that has to agree, 0 to 1.
    #[must_use]
    pub fn min_agreement(&self) -> f64 {
        self.min_agreement.unwrap_or(0.99)
    }
}

/// How the evidence is judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// How sure it has to be that the candidate is worse before it is taken back: of healthy candidates at most
    /// 1 − confidence are. 0.99 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 0.5 && self <= 0.9999")
            .message("write a number from 0.5 to 0.9999, such as 0.99"),
    )]
    pub confidence: Option<f64>,
    /// The ratio of the rates of bad requests, the candidate's to the stable revision's, that is tolerated. 1.0 when
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 1.0 && self <= 100.0")
            .message("write a number from 1 to 100: 1 tolerates no more bad requests than the stable revision has"),
    )]
    pub max_error_rate_ratio: Option<f64>,
    /// A request whose answer begins later than this is a bad one: the candidate may have no more than its share of them.
    /// From the request's arrival at a router to the head of its answer; compared with the nearest bound of the routers'
    /// histogram, which is at most a sixteenth away. It holds for candidates that begin after it was written. No limit
    /// when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new("self.matches('^([0-9]{1,6}m)?([0-9]{1,6}s)?([0-9]{1,6}ms)?$') && self != ''")
            .message("write a duration in minutes, seconds and milliseconds, such as 250ms or 2s"),
        validation = Rule::new("!self.matches('^([0-9]{1,6}m)?([0-9]{1,6}s)?([0-9]{1,6}ms)?$') || self == '' || (duration(self) >= duration('1ms') && duration(self) <= duration('60s'))")
            .message("write a time from 1ms to 60s"),
    )]
    pub max_latency: Option<String>,
    /// Requests that the candidate has to answer in a step; 100 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 0 && self <= 1000000000")
            .message("write a number of requests from 0 to 1000000000"),
    )]
    pub min_requests: Option<i64>,
    /// What happens when it did not get them by the deadline. `Pause` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_inconclusive: Option<OnInconclusive>,
    /// How long after its time a step waits for requests. 1h when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new(schema::DURATION)
            .message("write a duration in hours, minutes and seconds, such as 1h or 10m"),
    )]
    pub deadline: Option<String>,
    /// How long the candidate is watched with all of the traffic before it is promoted; the old pods are there to take
    /// it back. 2m when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20))]
    #[x_kube(
        validation = Rule::new(schema::DURATION)
            .message("write a duration in hours, minutes and seconds, such as 2m"),
        validation = Rule::new("!self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') || self == '' || duration(self) >= duration('10s')")
            .message("write at least 10s: every router has to have followed before the old pods may go"),
    )]
    pub settle: Option<String>,
}

/// How a new revision takes over from the one that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Strategy {
    /// The new revision gets a growing share of the requests while the evidence allows it. Needs the routers, or
    /// `weight` and `routing.provider: GatewayAPI`.
    Canary,
    /// The new revision starts beside the old one and takes over when all its pods are ready.
    BlueGreen,
    /// The old revision stops before the new one starts: for devices of which there are no spare ones.
    /// Nothing serves in between.
    Recreate,
}

/// Whether somebody has to agree to a promotion.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Approval {
    /// The evidence is enough.
    #[default]
    Automatic,
    /// The command `promote` is waited for.
    Manual,
}

/// What happens when a step gets too few requests to be judged.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum OnInconclusive {
    /// It waits for requests, or for a command.
    #[default]
    Pause,
    /// The candidate is taken back.
    Abort,
    /// It goes on without.
    Continue,
}
