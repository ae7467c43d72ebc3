//! What differs between two answers, for people: told without anything that a user could have sent.
//!
//! Of an answer only names of classes are told, and how far numbers are apart: a text that an output holds may be the
//! user's own (an echo, a translation), so that of it a hash is told, and of the names in a free JSON only those that the
//! protocols define.

use std::fmt::Write;

use ortolan_stats::example::{Difference, What, clipped};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Compare, Kind, LEAST, NO_CLASS, best, parsed,
    read::{self, Output, Row},
};

/// Names that the protocols define: they say nothing of a user.
const KNOWN: [&str; 12] = [
    "data",
    "datatype",
    "embedding",
    "embeddings",
    "index",
    "label",
    "name",
    "outputs",
    "parameters",
    "predictions",
    "probability",
    "shape",
];

impl Compare {
    /// What differs between two answers that [`Compare::pair`] calls different.
    #[must_use]
    pub fn difference(&self, users: &[u8], other: &[u8]) -> Difference {
        let (first, second) = (parsed(users), parsed(other));
        let (Some(first), Some(second)) = (first, second) else {
            return Difference::of(What::Unreadable);
        };
        let output = self.output.as_deref();
        if self.kind == Kind::Exact {
            return content(&first, &second, output);
        }
        let rows = |body: &Value| Output::of(body, output).map(|output| output.rows);
        let (Some(first), Some(second)) = (rows(&first), rows(&second)) else {
            return Difference::of(What::Unreadable);
        };
        if first.len() != second.len() {
            return Difference {
                rows: Some([first.len() as u64, second.len() as u64]),
                ..Difference::of(What::Rows)
            };
        }
        let mut pairs = first.iter().zip(&second);
        let at = pairs.position(|(a, b)| self.rows_agree(a, b) != Some(true));
        let Some(at) = at else {
            return Difference::of(What::Other);
        };
        Difference {
            row: Some(at as u64),
            ..self.of_row(&first[at], &second[at])
        }
    }

    fn of_row(&self, first: &Row, second: &Row) -> Difference {
        match self.kind {
            Kind::Classification => Difference {
                classes: Some([class(first), class(second)]),
                ..Difference::of(What::Class)
            },
            Kind::Regression => Difference {
                relative_error: first
                    .numbers()
                    .zip(second.numbers())
                    .and_then(|(first, second)| relative_error(&first, &second)),
                ..Difference::of(What::Number)
            },
            Kind::Embedding | Kind::Exact => Difference {
                cosine: first
                    .numbers()
                    .zip(second.numbers())
                    .and_then(|(first, second)| cosine(&first, &second)),
                ..Difference::of(What::Direction)
            },
        }
    }
}

/// The class of a row, as people know it: its label or its number. Of a text that stands in a tensor a hash: it may be
/// anything.
#[must_use]
pub(super) fn class(row: &Row) -> String {
    match row {
        Row::Scores(scores) => best(scores).map_or_else(|| NO_CLASS.into(), |at| at.to_string()),
        Row::Classes(classes) => classes.first().map_or_else(
            || NO_CLASS.into(),
            |class| match class {
                Value::String(label) => clipped(label),
                other => clipped(&other.to_string()),
            },
        ),
        Row::Labels(labels) => match &labels[..] {
            [one] if !one.is_string() => clipped(&one.to_string()),
            several => hashed(several),
        },
    }
}

fn hashed(labels: &[Value]) -> String {
    let text = match labels {
        [Value::String(one)] => one.clone(),
        several => Value::from(several.to_vec()).to_string(),
    };
    format!("text {}", hex(&Sha256::digest(text)[..4]))
}

/// Hexadecimal digits.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The largest |a − b| / max(|a|, |b|), to three digits.
fn relative_error(first: &[f64], second: &[f64]) -> Option<f64> {
    if first.len() != second.len() {
        return None;
    }
    let error = |(a, b): (&f64, &f64)| match a == b || (a.is_nan() && b.is_nan()) {
        true => 0.0,
        false => (a - b).abs() / a.abs().max(b.abs()).max(LEAST),
    };
    let errors = first.iter().zip(second).map(error);
    // A NaN on one side is no number's fault to be hidden: it stays.
    let largest = errors.fold(0.0, |most: f64, one| match one > most || one.is_nan() {
        true => one,
        false => most,
    });
    largest.is_finite().then(|| short(largest))
}

fn cosine(first: &[f64], second: &[f64]) -> Option<f64> {
    if first.len() != second.len() {
        return None;
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = dot(first, second) / (dot(first, first).sqrt() * dot(second, second).sqrt());
    cosine.is_finite().then(|| short(cosine))
}

/// To four digits after the point, or three digits where it is small.
fn short(number: f64) -> f64 {
    let text = match number.abs() >= 1e-3 {
        true => format!("{number:.4}"),
        false => format!("{number:.2e}"),
    };
    text.parse().unwrap_or(number)
}

fn content(first: &Value, second: &Value, output: Option<&str>) -> Difference {
    match (read::said(first, output), read::said(second, output)) {
        (Some(first), Some(second)) => {
            let mut at = String::new();
            differs(first, second, &mut at);
            Difference {
                at: Some(clipped(&at)).filter(|at| !at.is_empty()),
                ..Difference::of(What::Content)
            }
        }
        _ => Difference::of(What::Unreadable),
    }
}

/// Where two values differ first. Answers whether they do.
fn differs(first: &Value, second: &Value, at: &mut String) -> bool {
    let length = at.len();
    let found = match (first, second) {
        (Value::Array(a), Value::Array(b)) => {
            let place = a.iter().zip(b).position(|(a, b)| a != b);
            let place = place.or_else(|| (a.len() != b.len()).then(|| a.len().min(b.len())));
            if let Some(place) = place {
                let _ = write!(at, "[{place}]");
                if let (Some(a), Some(b)) = (a.get(place), b.get(place)) {
                    differs(a, b, at);
                }
            }
            place.is_some()
        }
        (Value::Object(a), Value::Object(b)) => {
            let names = a.keys().chain(b.keys());
            let name = names.into_iter().find(|name| a.get(*name) != b.get(*name));
            if let Some(name) = name {
                let word = if KNOWN.contains(&&**name) { name } else { "*" };
                let _ = write!(at, ".{word}");
                if let (Some(a), Some(b)) = (a.get(name), b.get(name)) {
                    differs(a, b, at);
                }
            }
            name.is_some()
        }
        (a, b) => a != b,
    };
    if !found {
        at.truncate(length);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(kind: &str) -> Compare {
        serde_json::from_str(&format!(r#"{{"kind": "{kind}"}}"#)).unwrap()
    }

    fn floats(shape: &str, data: &str) -> String {
        format!(r#"{{"outputs":[{{"name":"y","datatype":"FP32","shape":{shape},"data":{data}}}]}}"#)
    }

    fn told(kind: &str, users: &str, other: &str) -> String {
        let difference = by(kind).difference(users.as_bytes(), other.as_bytes());
        serde_json::to_string(&difference).unwrap()
    }

    #[test]
    fn what_differs_is_told_by_its_kind() {
        let one = floats("[2,3]", "[0.1,0.7,0.2,0.1,0.7,0.2]");
        let other = floats("[2,3]", "[0.1,0.7,0.2,0.7,0.1,0.2]");
        for (kind, users, other, expected) in [
            (
                "Classification",
                &*one,
                &*other,
                r#"{"what":"Class","row":1,"classes":["1","0"]}"#,
            ),
            (
                "Regression",
                &one,
                &other,
                r#"{"what":"Number","row":1,"relativeError":0.8571}"#,
            ),
            (
                "Embedding",
                &one,
                &other,
                r#"{"what":"Direction","row":1,"cosine":0.3333}"#,
            ),
            (
                "Exact",
                &one,
                &other,
                r#"{"what":"Content","at":"[0].data[3]"}"#,
            ),
            (
                "Classification",
                &one,
                &floats("[1,3]", "[0.1,0.7,0.2]"),
                r#"{"what":"Rows","rows":[2,1]}"#,
            ),
            (
                "Classification",
                &one,
                "no JSON",
                r#"{"what":"Unreadable"}"#,
            ),
            (
                "Classification",
                &one,
                r#"{"error":"x"}"#,
                r#"{"what":"Unreadable"}"#,
            ),
            (
                "Regression",
                &floats("[2]", "[1.0,2.0]"),
                &floats("[2]", "[null,2.0]"),
                r#"{"what":"Number","row":0}"#,
            ),
        ] {
            assert_eq!(told(kind, users, other), expected, "{kind}");
        }
    }

    #[test]
    fn labels_are_told_and_texts_are_not() {
        let label = |label: &str| {
            format!(r#"{{"predictions":[[{{"label":"{label}","probability":0.9}}]]}}"#)
        };
        let said = told("Classification", &label("tabby"), &label("tiger"));
        assert!(said.contains(r#"["tabby","tiger"]"#), "{said}");
        let text = |text: &str| floats("[1]", &format!(r#"["{text}"]"#)).replace("FP32", "BYTES");
        let said = told("Classification", &text("my secret"), &text("another"));
        assert!(said.contains("text ") && !said.contains("secret"), "{said}");
        let named = |name: &str| format!(r#"{{"predictions":[{{"{name}":{{"data":[1]}}}}]}}"#);
        let said = told("Exact", &named("my secret"), &named("another"));
        assert_eq!(said, r#"{"what":"Content","at":"[0].*"}"#);
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_long(users in ".{0,60}", other in ".{0,60}") {
            for kind in ["Classification", "Regression", "Embedding", "Exact"] {
                let _ = told(kind, &users, &other);
                let quoted = |text: &str| serde_json::json!({"predictions": [text, 1]}).to_string();
                let said = told(kind, &quoted(&users), &quoted(&other));
                proptest::prop_assert!(said.len() < 400, "{}", said);
            }
        }
    }
}
