//! `spec.rollout.shadow`: copies of requests, whose answers are compared.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Copies of requests that the candidate answers, too, and that are compared with the stable revision's answers. Nobody
/// gets the candidate's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    /// Of a hundred requests that the stable revision answers and that can be compared, so many are copied.
    #[x_kube(
        validation = Rule::new("self >= 1 && self <= 100")
            .message("write a share of the requests from 1 to 100"),
    )]
    pub percent: i32,
    /// When two answers are the same.
    pub compare: Compare,
}

/// When two answers are the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.tolerance) || self.kind == 'Regression' || self.kind == 'Embedding'")
        .message("tolerance belongs to kind Regression and Embedding: leave it out"),
)]
pub struct Compare {
    /// What is compared.
    pub kind: CompareKind,
    /// `Regression`: the largest relative error; `Embedding`: the largest 1 − cosine. 0.001 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 0.0 && self <= 1.0")
            .message("write a number from 0 to 1, such as 0.001"),
    )]
    pub tolerance: Option<f64>,
    /// The name of the output that is compared; the first one when absent, for `Exact` all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub output: Option<String>,
    /// The share of answers that may differ before it speaks against the candidate, beside those in which the stable
    /// revision differs from itself. 0.01 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 0.0 && self <= 0.5")
            .message("write a share from 0 to 0.5, such as 0.01"),
    )]
    pub max_disagreement: Option<f64>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum CompareKind {
    /// The best class.
    Classification,
    /// Each number.
    Regression,
    /// The direction of each vector.
    Embedding,
    /// Everything.
    Exact,
}

/// What the routers copy now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShadowStatus {
    /// Who gets the copies.
    pub revision: String,
    /// Of a hundred requests, so many.
    pub percent: i32,
    /// When two answers are the same.
    pub compare: ComparedStatus,
}

/// When two answers are the same, as the spec says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComparedStatus {
    /// What is compared.
    pub kind: CompareKind,
    /// How far numbers may be apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// The name of the output that is compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl From<&Compare> for ComparedStatus {
    fn from(compare: &Compare) -> Self {
        Self {
            kind: compare.kind,
            tolerance: compare.tolerance,
            output: compare.output.clone(),
        }
    }
}
