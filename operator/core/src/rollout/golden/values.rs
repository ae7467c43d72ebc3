//! What is in a tensor, and when two are the same.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

/// The elements of a tensor, row by row, however their JSON was nested.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// Numbers; `true` is 1, and `"NaN"`, `"Infinity"` and `"-Infinity"` are those, as in answers of the server.
    Numbers(Vec<f64>),
    /// Texts.
    Texts(Vec<String>),
}

#[derive(Default)]
struct Read {
    numbers: Vec<f64>,
    texts: Vec<String>,
}

/// Reads one element or a list of them.
struct Into<'a>(&'a mut Read);

impl<'de> DeserializeSeed<'de> for Into<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Into<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers or texts, flat or nested")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.visit_f64(f64::from(u8::from(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.numbers.push(value);
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        match value {
            "NaN" => self.visit_f64(f64::NAN),
            "Infinity" => self.visit_f64(f64::INFINITY),
            "-Infinity" => self.visit_f64(f64::NEG_INFINITY),
            _ => {
                self.0.texts.push(value.to_owned());
                Ok(())
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Into(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut read = Read::default();
        Into(&mut read).deserialize(from)?;
        let Read { numbers, texts } = read;
        match (numbers.is_empty(), texts.is_empty()) {
            (_, true) => Ok(Self::Numbers(numbers)),
            (true, false) => Ok(Self::Texts(texts)),
            (false, false) => Err(D::Error::custom("numbers and texts in one tensor")),
        }
    }
}

/// Whether a number is the expected one: off by at most `tolerance`, of the expected one's size where that is above 1.
fn is_close(got: f64, expected: f64, tolerance: f64) -> bool {
    if got.is_finite() && expected.is_finite() {
        (got - expected).abs() <= tolerance * expected.abs().max(1.0)
    } else {
        got == expected || (got.is_nan() && expected.is_nan())
    }
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Numbers(_) => "numbers",
            Self::Texts(_) => "texts",
        }
    }

    /// Nothing when these are the expected ones, else how they differ.
    pub(super) fn differ(&self, expected: &Self, tolerance: f64) -> Option<String> {
        let (got, wanted) = (self.len(), expected.len());
        if got != wanted {
            return Some(format!("{got} values where {wanted} are expected"));
        }
        match (self, expected) {
            (Self::Numbers(got), Self::Numbers(expected)) => {
                let pairs = got.iter().zip(expected).enumerate();
                let wrong: Vec<_> = pairs
                    .filter(|(_, (got, expected))| !is_close(**got, **expected, tolerance))
                    .collect();
                let far = |got: f64, expected: f64| {
                    let far = (got - expected).abs();
                    if far.is_nan() { f64::INFINITY } else { far }
                };
                let worst = wrong
                    .iter()
                    .max_by(|a, b| far(*a.1.0, *a.1.1).total_cmp(&far(*b.1.0, *b.1.1)));
                worst.map(|(at, (got, expected))| {
                    format!(
                        "{} of {wanted} values differ by more than {tolerance}, the most at {at}: {got} where \
                         {expected} is expected",
                        wrong.len()
                    )
                })
            }
            (Self::Texts(got), Self::Texts(expected)) => {
                let mut pairs = got.iter().zip(expected).enumerate();
                let first = pairs.find(|(_, (got, expected))| got != expected);
                first.map(|(at, (got, expected))| {
                    format!("{got:?} at {at} where {expected:?} is expected")
                })
            }
            // Nothing in them is nothing in them.
            _ if wanted == 0 => None,
            _ => Some(format!(
                "{} where {} are expected",
                self.kind(),
                expected.kind()
            )),
        }
    }

    /// Where the largest value of each of so many equal parts is, counted within its part.
    pub(super) fn largest(&self, parts: usize) -> Result<Vec<usize>, String> {
        let Self::Numbers(numbers) = self else {
            return Err("texts, which have no largest one".to_owned());
        };
        let length = numbers.len();
        if length == 0 || !length.is_multiple_of(parts) {
            return Err(format!(
                "{length} values, which are not {parts} rows: give one class for each row"
            ));
        }
        let largest = |row: &[f64]| {
            let known = row.iter().enumerate().filter(|(_, value)| !value.is_nan());
            // The first of equal ones.
            let best = known.rev().max_by(|a, b| a.1.total_cmp(b.1));
            best.map(|(at, _)| at).ok_or_else(|| "NaN only".to_owned())
        };
        numbers.chunks(length / parts).map(largest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Values {
        serde_json::from_str(text).expect("values")
    }

    #[test]
    fn elements_are_read_however_they_are_nested() {
        let flat = Values::Numbers(vec![1.0, 2.5, -3.0, 1.0]);
        assert_eq!(read("[1, 2.5, -3, true]"), flat);
        assert_eq!(read("[[1, 2.5], [-3, [true]]]"), flat);
        assert_eq!(read("[]"), Values::Numbers(vec![]));
        assert_eq!(read("7"), Values::Numbers(vec![7.0]));
        assert_eq!(
            read(r#"[["a"], ["b"]]"#),
            Values::Texts(vec!["a".into(), "b".into()])
        );
        let Values::Numbers(special) = read(r#"["NaN", "Infinity", "-Infinity", 1]"#) else {
            panic!("numbers")
        };
        assert!(special[0].is_nan() && special[1] > 0.0 && special[2] < 0.0);
        for wrong in [r#"[1, "a"]"#, r#"{"a": 1}"#, "null", "[null]"] {
            assert!(serde_json::from_str::<Values>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_may_be_off_by_the_tolerance_of_their_size_and_texts_not_at_all() {
        for (got, expected, tolerance, how) in [
            ("[1, 2]", "[1, 2]", 0.0, None),
            ("[1.0005]", "[1]", 1e-3, None),
            (
                "[0.002]",
                "[0]",
                1e-3,
                Some("1 of 1 values differ by more than 0.001"),
            ),
            ("[1000.9]", "[1000]", 1e-3, None),
            (
                "[1002]",
                "[1000]",
                1e-3,
                Some("1002 where 1000 is expected"),
            ),
            (
                "[1, 5, 9]",
                "[1, 2, 3]",
                0.1,
                Some("2 of 3 values differ by more than 0.1, the most at 2: 9 where 3"),
            ),
            ("[1]", "[1, 2]", 1.0, Some("1 values where 2 are expected")),
            (
                r#"["NaN", "Infinity"]"#,
                r#"["NaN", "Infinity"]"#,
                0.0,
                None,
            ),
            (
                r#"["-Infinity"]"#,
                r#"["Infinity"]"#,
                1e9,
                Some("-inf where inf"),
            ),
            ("[1]", r#"["Infinity"]"#, 1e9, Some("1 where inf")),
            (r#"["NaN"]"#, "[1]", 1e9, Some("NaN where 1")),
            (r#"["cat"]"#, r#"["cat"]"#, 0.0, None),
            (
                r#"["cat", "dog"]"#,
                r#"["cat", "cow"]"#,
                9.0,
                Some(r#""dog" at 1 where "cow""#),
            ),
            (
                r#"["1"]"#,
                "[1]",
                9.0,
                Some("texts where numbers are expected"),
            ),
            ("[]", "[]", 0.0, None),
        ] {
            let said = read(got).differ(&read(expected), tolerance);
            match how {
                None => assert_eq!(said, None, "{got} {expected}"),
                Some(how) => {
                    let said = said.expect("a difference");
                    assert!(said.contains(how), "{got} {expected}: {said}");
                }
            }
        }
    }

    #[test]
    fn the_class_of_each_row_is_the_first_largest_value() {
        for (values, parts, expected) in [
            ("[0.1, 0.7, 0.2]", 1, Ok(vec![1])),
            ("[0.7, 0.1, 0.7]", 1, Ok(vec![0])),
            ("[[1, 2], [4, 3]]", 2, Ok(vec![1, 0])),
            (r#"["NaN", 1, "-Infinity"]"#, 1, Ok(vec![1])),
            (r#"["NaN"]"#, 1, Err("NaN only")),
            ("[1, 2, 3]", 2, Err("3 values, which are not 2 rows")),
            ("[]", 1, Err("0 values")),
            (r#"["a"]"#, 1, Err("texts")),
        ] {
            let got = read(values).largest(parts);
            match expected {
                Ok(expected) => assert_eq!(got, Ok(expected), "{values}"),
                Err(part) => assert!(got.expect_err(values).contains(part), "{values}"),
            }
        }
    }
}
