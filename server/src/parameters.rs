//! The `parameters` of requests, inputs and outputs: what they mean here, whichever protocol brought them.
//!
//! A parameter that is not known is ignored, as Triton does; one that is known and has the wrong type, or
//! that asks for something that is not done here, is an error with a sentence.

use std::{borrow::Cow, fmt, time::Duration};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A parameter's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number, which may be larger than an `Int`.
    Uint(u64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// Null, an array or an object: no parameter that is known here has such a value.
    Other,
}

/// Parameters by name, in the order in which they came.
pub type Parameters<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfRequest {
    /// 0 is the model's default, 1 the highest.
    pub priority: u64,
    /// How long the request may take.
    pub timeout: Option<Duration>,
    /// Whether outputs that do not say otherwise come as bytes; `None` as the protocol has it.
    pub binary: Option<bool>,
}

/// What a request asks of one output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfOutput {
    /// Whether it comes as bytes; `None` as the request says.
    pub binary: Option<bool>,
    /// How many classes instead of the scores.
    pub classes: Option<usize>,
}

impl OfRequest {
    /// Reads a request's parameters.
    pub fn read(parameters: &[(Cow<'_, str>, Value<'_>)]) -> Result<Self, String> {
        let mut read = Self::default();
        for (name, value) in parameters {
            match name.as_ref() {
                "priority" => read.priority = whole(name, value, "")?,
                "timeout" => {
                    let micros = whole(name, value, " of microseconds")?;
                    read.timeout = (micros > 0).then(|| Duration::from_micros(micros));
                }
                "binary_data_output" => read.binary = Some(flag(name, value)?),
                "sequence_id" | "sequence_start" | "sequence_end" if !is_nothing(value) => {
                    return Err(format!(
                        "the parameter {name:?} asks for a sequence, and this server keeps no state between \
                         requests: each would be answered as if it stood alone; leave the parameter out, and \
                         pass the model's state as a tensor"
                    ));
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

impl OfOutput {
    /// Reads a requested output's parameters.
    pub fn read(parameters: &[(Cow<'_, str>, Value<'_>)]) -> Result<Self, String> {
        let mut read = Self::default();
        for (name, value) in parameters {
            match name.as_ref() {
                "binary_data" => read.binary = Some(flag(name, value)?),
                "classification" => {
                    let count = whole(name, value, " of classes")?;
                    let count = usize::try_from(count).unwrap_or(usize::MAX);
                    read.classes = (count > 0).then_some(count);
                }
                _ => refuse_shared_memory(name)?,
            }
        }
        Ok(read)
    }
}

/// Reads an input's parameters: how many bytes of binary data are its own, if they say so.
pub fn binary_size(parameters: &[(Cow<'_, str>, Value<'_>)]) -> Result<Option<usize>, String> {
    let mut size = None;
    for (name, value) in parameters {
        match name.as_ref() {
            "binary_data_size" => {
                let bytes = whole(name, value, " of bytes")?;
                size = Some(usize::try_from(bytes).unwrap_or(usize::MAX));
            }
            _ => refuse_shared_memory(name)?,
        }
    }
    Ok(size)
}

fn refuse_shared_memory(name: &str) -> Result<(), String> {
    if name.starts_with("shared_memory_") {
        return Err(format!(
            "the parameter {name:?} asks for shared memory, which this server does not read or write; send the \
             tensor in the request"
        ));
    }
    Ok(())
}

/// What clients send when no sequence is meant.
fn is_nothing(value: &Value<'_>) -> bool {
    match value {
        Value::Bool(set) => !set,
        Value::Int(number) => *number == 0,
        Value::Uint(number) => *number == 0,
        Value::Text(text) => text.is_empty(),
        Value::Float(_) | Value::Other => false,
    }
}

fn whole(name: &str, value: &Value<'_>, of: &str) -> Result<u64, String> {
    let number = match value {
        Value::Uint(number) => Some(*number),
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        format!("the parameter {name:?} is {value}, expected a whole number{of}, 0 or more")
    })
}

fn flag(name: &str, value: &Value<'_>) -> Result<bool, String> {
    match value {
        Value::Bool(set) => Ok(*set),
        _ => Err(format!(
            "the parameter {name:?} is {value}, expected true or false"
        )),
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{:?}", text.chars().take(32).collect::<String>()),
            Self::Other => f.write_str("neither a number, a string nor true or false"),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter's value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Value::Uint(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

/// For a field `parameters`: a JSON object, or null for none.
pub fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Parameters<'de>, D::Error> {
    struct Object;

    impl<'de> Visitor<'de> for Object {
        type Value = Parameters<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of parameters")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut parameters = Vec::new();
            while let Some((name, value)) = entries.next_entry::<Name<'de>, Value<'de>>()? {
                parameters.push((name.0, value));
            }
            Ok(parameters)
        }
    }

    /// `Cow` alone would always copy.
    #[derive(serde::Deserialize)]
    struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

    deserializer.deserialize_any(Object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Parameters<'_> {
        object(&mut serde_json::Deserializer::from_str(text)).unwrap()
    }

    #[test]
    fn what_is_known_is_read_and_the_rest_ignored() {
        let parameters = parsed(
            r#"{"priority": 2, "timeout": 1500, "binary_data_output": true, "mine": [1, {"a": null}],
                "sequence_id": 0, "sequence_start": false, "sequence_end": false, "headers": null, "x": 1.5}"#,
        );
        let expected = OfRequest {
            priority: 2,
            timeout: Some(Duration::from_micros(1500)),
            binary: Some(true),
        };
        assert_eq!(OfRequest::read(&parameters), Ok(expected));
        assert_eq!(OfRequest::read(&parsed("null")), Ok(OfRequest::default()));
        assert_eq!(
            OfRequest::read(&parsed(r#"{"timeout": 0}"#))
                .unwrap()
                .timeout,
            None
        );
        let output = OfOutput::read(&parsed(r#"{"binary_data": false, "classification": 3}"#));
        assert_eq!(
            output,
            Ok(OfOutput {
                binary: Some(false),
                classes: Some(3)
            })
        );
        assert_eq!(
            OfOutput::read(&parsed(r#"{"classification": 0}"#))
                .unwrap()
                .classes,
            None
        );
        assert_eq!(
            binary_size(&parsed(r#"{"binary_data_size": 16, "a": "b"}"#)),
            Ok(Some(16))
        );
        assert_eq!(binary_size(&[]), Ok(None));
    }

    #[test]
    fn a_wrong_type_is_named_with_the_right_one() {
        for (text, part) in [
            (r#"{"timeout": "5"}"#, "\"timeout\" is \"5\""),
            (r#"{"timeout": -1}"#, "\"timeout\" is -1"),
            (r#"{"timeout": 1.5}"#, "microseconds"),
            (r#"{"priority": true}"#, "\"priority\" is true"),
            (r#"{"binary_data_output": 1}"#, "expected true or false"),
            (r#"{"sequence_id": 7}"#, "keeps no state"),
            (r#"{"sequence_id": "a"}"#, "keeps no state"),
            (r#"{"sequence_start": true}"#, "keeps no state"),
        ] {
            let sentence = OfRequest::read(&parsed(text)).unwrap_err();
            assert!(sentence.contains(part), "{text}: {sentence}");
        }
        for text in [
            r#"{"shared_memory_region": "r"}"#,
            r#"{"shared_memory_byte_size": 8}"#,
        ] {
            assert!(
                binary_size(&parsed(text))
                    .unwrap_err()
                    .contains("shared memory")
            );
            assert!(
                OfOutput::read(&parsed(text))
                    .unwrap_err()
                    .contains("shared memory")
            );
        }
        assert!(
            binary_size(&parsed(r#"{"binary_data_size": null}"#))
                .unwrap_err()
                .contains("bytes")
        );
        assert!(object(&mut serde_json::Deserializer::from_str("[1]")).is_err());
    }
}
