//! How many answers agree, and whether that is enough.

use std::fmt::Write;

use crate::rollout::evidence::{Count, frozen::upper_wilson};

/// So many disagreements are told of.
pub const MAX_TOLD: usize = 5;

/// Answers that agree with the golden set, of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// That agree.
    pub agreed: u32,
    /// All.
    pub all: u32,
}

impl Agreement {
    /// The share that agrees, 0 to 1; none of none.
    #[must_use]
    pub fn rate(self) -> Option<f64> {
        (self.all > 0).then(|| f64::from(self.agreed) / f64::from(self.all))
    }

    /// The lower end of Wilson's interval for the share (one-sided, 99 %): so much of other requests of the same kind
    /// agree at the least.
    #[must_use]
    pub fn lower_bound(self) -> Option<f64> {
        let wrong = self.all.saturating_sub(self.agreed);
        let upper = upper_wilson(Count::new(self.all.into(), wrong.into()))?;
        // Rounding may put it above a share of 0.
        Some((1.0 - upper).clamp(0.0, self.rate()?))
    }
}

/// What a run of a golden set came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The candidate's answers.
    pub candidate: Agreement,
    /// The stable revision's, where there is one. They decide nothing: they tell whether the set is out of date.
    pub stable: Option<Agreement>,
    /// The candidate's first disagreements, by line, [`MAX_TOLD`] at most.
    pub disagreements: Vec<String>,
}

/// Whether a candidate may have traffic, as far as the golden set goes. Each with the sentence that says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Passed(String),
    /// It may not.
    Failed(String),
}

fn percent(share: f64) -> String {
    // Rounded down: 99.97 % is not 100 %.
    format!("{:.1} %", (share * 1000.0 + 1e-6).floor() / 10.0)
}

impl Judgement {
    /// Enough is `min_agreement` of the answers, 0 to 1. The bound is told and does not decide: a hundred answers that
    /// all agree have one of 94.8 %.
    #[must_use]
    pub fn verdict(&self, min_agreement: f64) -> Verdict {
        let Agreement { agreed, all } = self.candidate;
        let (Some(rate), Some(bound)) = (self.candidate.rate(), self.candidate.lower_bound())
        else {
            return Verdict::Failed("the golden set has no line".to_owned());
        };
        let mut said = format!(
            "{agreed} of {all} answers agree with the golden set ({}, with 99 % confidence at least {})",
            percent(rate),
            percent(bound)
        );
        // A share as it is written, 0.99 for instance, is a little more or less than 99 of 100.
        let is_enough = rate + 1e-9 >= min_agreement;
        if is_enough {
            return Verdict::Passed(said);
        }
        // Writing into a String does not fail.
        let _ = write!(said, ", and {} are asked for", percent(min_agreement));
        if let Some(stable) = self.stable {
            let _ = write!(
                said,
                "; of the stable revision's answers {} agree",
                stable.agreed
            );
            if stable.agreed <= self.candidate.agreed {
                said += ", no more than that, so that the set itself may be out of date";
            }
        }
        if !self.disagreements.is_empty() {
            let _ = write!(said, ". {}", self.disagreements.join("; "));
        }
        Verdict::Failed(said)
    }
}
