//! Whether two answers to one request say the same: the user's own, and that of another pod to a copy of the request.
//!
//! Inputs: how to compare, and two bodies of answers that were 200. Output: a [`Verdict`]. Pure. Invariants: an answer
//! agrees with itself or is [`Verdict::Unclear`]; what is unclear depends on the user's answer alone, so that a
//! candidate gains nothing by answers that cannot be read.

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) mod difference;
mod read;

use read::{Output, Row};

/// Below this a number counts as this large: a relative error of next to nothing says nothing.
const LEAST: f64 = 1e-6;

/// What stands for the class of an answer that has none.
pub const NO_CLASS: &str = "none";

/// When two answers count as the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Compare {
    /// What is compared.
    pub kind: Kind,
    /// `Regression`: the largest relative error; `Embedding`: the largest 1 − cosine. The others need none.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// The output that is compared; the first one (`Exact`: all) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The best class of each row.
    Classification,
    /// Each number.
    Regression,
    /// The direction of each row.
    Embedding,
    /// Everything.
    Exact,
}

/// How far numbers may be apart, a finite number of at least 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Tolerance(f64);

/// It is never NaN.
impl Eq for Tolerance {}

impl Default for Tolerance {
    fn default() -> Self {
        Self(1e-3)
    }
}

impl TryFrom<f64> for Tolerance {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        if number.is_finite() && number >= 0.0 {
            Ok(Self(number))
        } else {
            Err(format!(
                "a tolerance is a number of at least 0, such as 0.001, not {number}"
            ))
        }
    }
}

impl From<Tolerance> for f64 {
    fn from(tolerance: Tolerance) -> Self {
        tolerance.0
    }
}

/// What a pair of answers came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They say the same.
    Agree,
    /// They do not, or the second cannot be compared with the first.
    Differ,
    /// The first one cannot be compared in this way with anything.
    Unclear,
}

impl Compare {
    /// Compares the user's answer with another one to the same request; both had the code 200.
    #[must_use]
    pub fn pair(&self, users: &[u8], other: &[u8]) -> Verdict {
        self.pair_and_classes(users, other).0
    }

    /// The same, and where classes are compared those of the first row, [`NO_CLASS`] where there is none.
    #[must_use]
    pub fn pair_and_classes(&self, users: &[u8], other: &[u8]) -> (Verdict, Option<[String; 2]>) {
        let (first, second) = (parsed(users), parsed(other));
        if self.kind == Kind::Exact {
            return (self.exact((users, first), (other, second)), None);
        }
        let output = self.output.as_deref();
        let Some(first) = first.and_then(|body| Output::of(&body, output)) else {
            return (Verdict::Unclear, None);
        };
        let second = second.and_then(|body| Output::of(&body, output));
        let verdict = self.rows(&first, second.as_ref());
        let is_clear = self.kind == Kind::Classification && verdict != Verdict::Unclear;
        let class = |output: Option<&Output>| {
            let row = output.and_then(|output| output.rows.first());
            row.map_or_else(|| NO_CLASS.to_owned(), difference::class)
        };
        let classes = is_clear.then(|| [class(Some(&first)), class(second.as_ref())]);
        (verdict, classes)
    }

    fn rows(&self, first: &Output, second: Option<&Output>) -> Verdict {
        // Whether it can be compared at all is shown by comparing it with itself.
        let is_clear = |row| self.rows_agree(row, row).is_some();
        if first.rows.is_empty() || !first.rows.iter().all(is_clear) {
            return Verdict::Unclear;
        }
        let Some(second) = second else {
            return Verdict::Differ;
        };
        let same = |(a, b)| self.rows_agree(a, b) == Some(true);
        verdict(
            first.rows.len() == second.rows.len() && first.rows.iter().zip(&second.rows).all(same),
        )
    }

    /// Whether two rows say the same; `None`: the first one cannot be compared in this way.
    fn rows_agree(&self, first: &Row, second: &Row) -> Option<bool> {
        match self.kind {
            Kind::Classification => same_class(first, second),
            Kind::Regression => close(first, second, self.tolerance.0),
            Kind::Embedding | Kind::Exact => same_direction(first, second, self.tolerance.0),
        }
    }

    fn exact(
        &self,
        (users, first): (&[u8], Option<Value>),
        (other, second): (&[u8], Option<Value>),
    ) -> Verdict {
        let Some(first) = first else {
            return match self.output {
                Some(_) => Verdict::Unclear,
                None => verdict(users == other),
            };
        };
        match read::said(&first, self.output.as_deref()) {
            None => Verdict::Unclear,
            Some(said) => {
                let second = second.as_ref();
                verdict(
                    second.and_then(|body| read::said(body, self.output.as_deref())) == Some(said),
                )
            }
        }
    }
}

fn parsed(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

const fn verdict(agree: bool) -> Verdict {
    match agree {
        true => Verdict::Agree,
        false => Verdict::Differ,
    }
}

/// Whether two rows have the same best class. `None`: they have no classes. A single score has none either: where it
/// turns from one class into the other is not known here.
fn same_class(first: &Row, second: &Row) -> Option<bool> {
    match (first, second) {
        (Row::Classes(first), Row::Classes(second)) => Some(first.first() == second.first()),
        (Row::Labels(first), Row::Labels(second)) => Some(first == second),
        (Row::Scores(first), Row::Scores(second)) => (first.len() > 1 && second.len() > 1)
            .then(|| first.len() == second.len() && best(first) == best(second)),
        _ => Some(false),
    }
}

/// The place of the largest, the first of equals; `None` when one is not a number.
fn best(scores: &[f64]) -> Option<usize> {
    if scores.iter().any(|score| score.is_nan()) {
        return None;
    }
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter().position(|score| *score == largest)
}

/// Whether all numbers are as close as the tolerance says, relative to the larger one. `None`: they are no numbers.
fn close(first: &Row, second: &Row, tolerance: f64) -> Option<bool> {
    let (first, second) = (first.numbers()?, second.numbers()?);
    let is_close = |(a, b): (&f64, &f64)| {
        // Infinities of one sign, too.
        a == b
            || (a.is_nan() && b.is_nan())
            || (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(LEAST)
    };
    Some(first.len() == second.len() && first.iter().zip(&second).all(is_close))
}

/// Whether two vectors point the same way: 1 − cosine is at most the tolerance. `None`: the first one points nowhere,
/// since a part of it is no number.
fn same_direction(first: &Row, second: &Row, tolerance: f64) -> Option<bool> {
    let (first, second) = (first.numbers()?, second.numbers()?);
    if first.iter().any(|number| !number.is_finite()) {
        return None;
    }
    if first.len() != second.len() {
        return Some(false);
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = dot(&first, &first).sqrt() * dot(&second, &second).sqrt();
    if first == second {
        return Some(true);
    }
    // Against a vector of zeros, and with what is no number, nothing is the same way.
    Some(lengths > 0.0 && 1.0 - dot(&first, &second) / lengths <= tolerance.max(f64::EPSILON))
}

#[cfg(test)]
mod tests;
