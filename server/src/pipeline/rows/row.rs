//! Rows as they stand in a JSON body: taken apart one by one, their values left as text.
//!
//! Input: an array of rows, or one row. Output: each row, an array of values or an object of columns. Invariant: no more
//! than one row is held, and nothing of it is copied but names with escapes.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// One row, its values not yet read.
pub(super) enum Row<'a> {
    Array(Vec<&'a RawValue>),
    Object(Vec<(Cow<'a, str>, &'a RawValue)>),
}

impl<'de> Deserialize<'de> for Row<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Row<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row, which is an array of values or an object of columns")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element::<&RawValue>()? {
                    values.push(value);
                }
                Ok(Row::Array(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    values.push((name.0, map.next_value()?));
                }
                Ok(Row::Object(values))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Hands on each row of an array until one is refused.
pub(super) struct Each<F>(pub(super) F);

impl<'de, F: FnMut(Row<'de>) -> Result<(), ()>> DeserializeSeed<'de> for Each<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Row<'de>) -> Result<(), ()>> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(row) = seq.next_element()? {
            // The reason is with the one who was told.
            self.0(row).map_err(|()| A::Error::custom("a row is refused"))?;
        }
        Ok(())
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
