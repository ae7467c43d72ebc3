//! A message's fields by name, with types, and a note for each that nobody asked for.
//!
//! Invariant: after [`Fields::done`] every field of the message was either used or noted by its path
//! and line; none is passed over in silence.

use super::text::{self, Message, Value};

/// What is wrong, for the sentence "config.pbtxt …".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong(pub(super) String);

/// What was read and not used.
pub(super) type Notes = Vec<String>;

/// The fields of one message.
pub(super) struct Fields<'m> {
    /// `dynamic_batching.`, or nothing for the whole file.
    path: String,
    left: Vec<&'m text::Field>,
}

/// One field.
#[derive(Clone)]
pub(super) struct Item<'m> {
    path: String,
    field: &'m text::Field,
}

impl<'m> Fields<'m> {
    pub(super) fn of(message: &'m Message) -> Self {
        Self {
            path: String::new(),
            left: message.fields.iter().collect(),
        }
    }

    /// Every field of this name.
    pub(super) fn all(&mut self, name: &str) -> Vec<Item<'m>> {
        let (found, left) = self.left.iter().partition(|field| field.name == name);
        self.left = left;
        let found: Vec<&text::Field> = found;
        let path = format!("{}{name}", self.path);
        found
            .into_iter()
            .map(|field| Item {
                path: path.clone(),
                field,
            })
            .collect()
    }

    /// The field of this name, which may stand there once.
    pub(super) fn one(&mut self, name: &str) -> Result<Option<Item<'m>>, Wrong> {
        let mut found = self.all(name);
        let first = found.pop();
        match (first, found.pop()) {
            (Some(again), Some(first)) => Err(Wrong(format!(
                "{} stands there twice, in the lines {} and {}; keep one",
                again.path, first.field.line, again.field.line
            ))),
            (one, _) => Ok(one),
        }
    }

    /// Fields that this server knows and does not act on.
    pub(super) fn unused(&mut self, names: &[&str], notes: &mut Notes) {
        for name in names {
            for item in self.all(name) {
                notes.push(item.note("is not used here"));
            }
        }
    }

    /// Whatever is left is not known.
    pub(super) fn done(self, notes: &mut Notes) {
        for field in self.left {
            notes.push(format!(
                "{}{} (line {}) is not known",
                self.path, field.name, field.line
            ));
        }
    }
}

impl<'m> Item<'m> {
    /// `path (line 3) is not used`
    pub(super) fn note(&self, what: &str) -> String {
        format!("{} (line {}) {what}", self.path, self.field.line)
    }

    pub(super) fn wrong(&self, what: &str) -> Wrong {
        Wrong(format!("line {}: {} {what}", self.field.line, self.path))
    }

    fn expected(&self, what: &str) -> Wrong {
        let found = match &self.field.value {
            Value::Message(_) => "a message in braces".to_owned(),
            Value::Text(text) => format!("the text {text:?}"),
            Value::Word(word) | Value::Number(word) => word.clone(),
        };
        self.wrong(&format!("is {found}, expected {what}"))
    }

    pub(super) fn message(&self) -> Result<Fields<'m>, Wrong> {
        match &self.field.value {
            Value::Message(message) => Ok(Fields {
                path: format!("{}.", self.path),
                left: message.fields.iter().collect(),
            }),
            _ => Err(self.expected("a message in braces")),
        }
    }

    pub(super) fn text(&self) -> Result<&'m str, Wrong> {
        match &self.field.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.expected("a text in quotes")),
        }
    }

    /// A whole number of `least..=most`.
    pub(super) fn number(&self, least: i64, most: i64) -> Result<i64, Wrong> {
        let number = match &self.field.value {
            Value::Number(text) => whole(text),
            _ => None,
        };
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.expected(&format!("a whole number, {least} to {most}")))
    }

    /// A number that counts something. A billion is far above everything that is counted here.
    pub(super) fn count(&self, least: i64) -> Result<usize, Wrong> {
        let number = self.number(least, 1_000_000_000)?;
        Ok(usize::try_from(number).unwrap_or_default())
    }

    pub(super) fn bool(&self) -> Result<bool, Wrong> {
        match &self.field.value {
            Value::Word(word) | Value::Number(word) => match word.as_str() {
                "true" | "True" | "t" | "1" => Some(true),
                "false" | "False" | "f" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
        .ok_or_else(|| self.expected("true or false"))
    }

    /// One of the enum's names or numbers.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, i64, T)]) -> Result<T, Wrong> {
        let found = choices
            .iter()
            .find(|(name, number, _)| match &self.field.value {
                Value::Word(word) => word == name,
                Value::Number(text) => whole(text) == Some(*number),
                _ => false,
            });
        found.map(|(_, _, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _, _)| *name).collect();
            self.expected(&format!("one of {}", names.join(", ")))
        })
    }
}

/// Decimal, octal or hexadecimal.
fn whole(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let magnitude = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        i128::from_str_radix(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i128::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    i64::try_from(sign * magnitude.ok()?).ok()
}
