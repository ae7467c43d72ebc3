//! Examples of answers that differ: enough to find the requests again, and nothing of what a user sent.
//!
//! Invariants: an example holds no value of an input, no text of an answer but names of classes, and is of a bounded
//! size: texts are at most [`LONGEST`] characters, lists at most [`MOST`] parts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Examples that a router keeps of one revision under one generation of the traffic: the first ones.
pub const EXAMPLES: usize = 5;
/// The longest text of an example, in characters.
pub const LONGEST: usize = 64;
/// The longest list of an example: inputs, and the axes of one.
pub const MOST: usize = 8;

/// A copy of a request whose answer was not that which the user got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Example {
    /// When both answers were there.
    pub at: Timestamp,
    /// The traffic generation under which the request arrived.
    pub generation: u64,
    /// The revision whose answer the user got.
    pub stable: String,
    /// The revision whose answer differs.
    pub candidate: String,
    /// What differs.
    pub difference: Difference,
    /// The request's inputs by name, without their values; none where the protocol names none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// The SHA-256 of the request's body, in hexadecimal digits.
    pub body_sha256: String,
    /// The length of the request's body in bytes.
    pub body_bytes: u64,
    /// The trace's number in the request's `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// An input without its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its type, as the protocol writes it.
    pub datatype: String,
    /// The length of each axis.
    pub shape: Vec<u64>,
}

/// What kind of difference there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The best class of a row.
    Class,
    /// A number.
    Number,
    /// The direction of a row.
    Direction,
    /// Something of the content.
    Content,
    /// The number of rows.
    Rows,
    /// The code of the answer.
    Code,
    /// The second answer cannot be read as the first one can.
    Unreadable,
    /// The second answer did not come in time.
    Late,
    /// What a router of another version calls by another word.
    #[serde(other)]
    Other,
}

/// What differs between two answers: the user's, and the candidate's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What kind of difference.
    pub what: What,
    /// The candidate's code, where it is not 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The numbers of rows, the user's and the candidate's, where they are not the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<[u64; 2]>,
    /// The first row that differs, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// The best classes of that row, the user's and the candidate's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<[String; 2]>,
    /// The largest relative error of that row, |a − b| / max(|a|, |b|); absent where it is no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_error: Option<f64>,
    /// The cosine of both rows; absent where it is no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
    /// Where the content differs first: places in lists, and names that the protocols define (`*` for any other).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

impl Difference {
    /// Of this kind, and nothing more to tell.
    #[must_use]
    pub const fn of(what: What) -> Self {
        Self {
            what,
            code: None,
            rows: None,
            row: None,
            classes: None,
            relative_error: None,
            cosine: None,
            at: None,
        }
    }
}

/// A text of at most [`LONGEST`] characters without control characters.
#[must_use]
pub fn clipped(text: &str) -> String {
    let kept = text.chars().filter(|c| !c.is_control());
    kept.take(LONGEST).collect()
}

impl Example {
    /// The same within the bounds, whoever sent it.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.stable, &mut self.candidate, &mut self.body_sha256] {
            *text = clipped(text);
        }
        self.trace_id = self.trace_id.map(|id| clipped(&id));
        self.inputs.truncate(MOST);
        for input in &mut self.inputs {
            input.name = clipped(&input.name);
            input.datatype = clipped(&input.datatype);
            input.shape.truncate(MOST);
        }
        let difference = &mut self.difference;
        difference.classes = difference
            .classes
            .take()
            .map(|both| both.map(|class| clipped(&class)));
        difference.at = difference.at.take().map(|at| clipped(&at));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Example {
        Example {
            at: Timestamp::UNIX_EPOCH,
            generation: 4,
            stable: "cats-1".into(),
            candidate: "cats-2".into(),
            difference: Difference {
                row: Some(0),
                classes: Some(["tabby".into(), "tiger".into()]),
                ..Difference::of(What::Class)
            },
            inputs: vec![Input {
                name: "x".into(),
                datatype: "FP32".into(),
                shape: vec![1, 3],
            }],
            body_sha256: "ab".repeat(32),
            body_bytes: 12,
            trace_id: None,
        }
    }

    #[test]
    fn an_example_is_a_short_line_of_json_and_reads_back() {
        let text = serde_json::to_string(&example()).expect("JSON");
        let expected = concat!(
            r#"{"at":"1970-01-01T00:00:00Z","generation":4,"stable":"cats-1","candidate":"cats-2","#,
            r#""difference":{"what":"Class","row":0,"classes":["tabby","tiger"]},"#,
            r#""inputs":[{"name":"x","datatype":"FP32","shape":[1,3]}],"bodySha256":"#,
        );
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(
            serde_json::from_str::<Example>(&text).expect("an example"),
            example()
        );
    }

    #[test]
    fn a_kind_of_difference_that_we_do_not_know_is_read() {
        let text = r#"{"what":"Colour","hue":3}"#;
        let read: Difference = serde_json::from_str(text).expect("a difference");
        assert_eq!(read, Difference::of(What::Other));
    }

    #[test]
    fn whoever_sends_more_is_cut_short() {
        let long = "a\u{7}".repeat(10_000);
        let mut much = example();
        much.stable.clone_from(&long);
        much.trace_id = Some(long.clone());
        much.difference.classes = Some([long.clone(), long.clone()]);
        much.difference.at = Some(long.clone());
        much.inputs = vec![
            Input {
                name: long.clone(),
                datatype: long,
                shape: vec![u64::MAX; 10_000],
            };
            100
        ];
        let text = serde_json::to_string(&much.bounded()).expect("JSON");
        assert!(text.len() < 4_096, "{} bytes", text.len());
        assert!(!text.contains("\\u0007"));
        assert_eq!(example().bounded(), example());
    }
}
