//! The golden set (`rollout.validation`): requests whose answers are known, asked before any user's.
//!
//! ```text
//!  file ─▶ [`parse`] ─▶ cases ─▶ (a pod answers) ─▶ [`Case::judge`] ─▶ [`Judgement`] ─▶ [`Verdict`]
//! ```
//!
//! Inputs: the text of the file, answers of a pod. Outputs: cases, or the number of the line that is wrong and what to
//! write there; how many answers agree; whether that is enough. Invariants: the order of the lines does not matter;
//! an error tells what a line lacks and none of its values, since the file may be another's.

mod agreement;
mod line;
mod values;

pub use self::{
    agreement::{Agreement, Judgement, MAX_TOLD, Verdict},
    line::{Ask, Case, Image, MAX_LINE_BYTES, MAX_LINES, Malformed, parse},
};

#[cfg(test)]
mod tests;
