//! Protobuf's text format as a tree of names and values, read without a schema.
//!
//! A parser that knows the schema stops at the first name that it does not know. A `config.pbtxt`
//! written for a newer Triton, or for another backend, must load all the same, with a warning that
//! names the field; so this one keeps every name with its line and leaves the judgement to its caller.
//!
//! Input: text. Output: a [`Message`], or an [`Error`] with line and column. Invariants: lists are
//! spread into one field for each element, adjacent strings are joined, escapes are resolved;
//! nesting is bounded, so that no text overflows the stack.

use std::{fmt, iter::Peekable, str::CharIndices};

/// Deeper than any configuration; protobuf's own parsers stop at 100.
const MAX_DEPTH: usize = 64;

/// Fields in the order of the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Message {
    pub(crate) fields: Vec<Field>,
}

/// One name with one value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// A value as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Message(Message),
    /// Joined and unescaped; bytes that are no UTF-8 are refused.
    Text(String),
    /// An enum's name, `true`, `inf`; with its sign, if there is one.
    Word(String),
    /// A number as it stands, with its sign and without blanks.
    Number(String),
}

/// Where the text is no text format, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Error {
    line: usize,
    column: usize,
    what: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}",
            self.line, self.column, self.what
        )
    }
}

/// Reads a whole text.
pub(crate) fn parse(text: &str) -> Result<Message, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser {
        text,
        chars: text.char_indices().peekable(),
        line: 1,
        line_start: 0,
    };
    parser.message(None, 0)
}

struct Parser<'t> {
    text: &'t str,
    chars: Peekable<CharIndices<'t>>,
    line: usize,
    line_start: usize,
}

impl Parser<'_> {
    /// Fields up to `end`, or up to the end of the text.
    fn message(&mut self, end: Option<char>, depth: usize) -> Result<Message, Error> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(format!("more than {MAX_DEPTH} messages inside each other")));
        }
        let opened = self.line;
        let mut fields = Vec::new();
        loop {
            self.blanks();
            match (self.peek(), end) {
                (None, None) => return Ok(Message { fields }),
                (None, Some(end)) => {
                    return Err(self.wrong(format!(
                        "the text ends before the {end:?} that closes line {opened}"
                    )));
                }
                (Some(c), Some(end)) if c == end => {
                    self.next();
                    return Ok(Message { fields });
                }
                _ => self.field(&mut fields, depth)?,
            }
        }
    }

    /// `name: value`, `name { … }`, `name: [ … ]`, and the comma or semicolon that may follow.
    fn field(&mut self, fields: &mut Vec<Field>, depth: usize) -> Result<(), Error> {
        let line = self.line;
        let name = self.name()?;
        self.blanks();
        let colon = self.eat(':');
        self.blanks();
        let mut push = |value| {
            fields.push(Field {
                name: name.clone(),
                line,
                value,
            });
        };
        if self.eat('[') {
            self.list(&mut push, colon, depth)?;
        } else {
            push(self.value(colon, depth)?);
        }
        self.blanks();
        if !self.eat(',') {
            self.eat(';');
        }
        Ok(())
    }

    fn list(
        &mut self,
        push: &mut impl FnMut(Value),
        colon: bool,
        depth: usize,
    ) -> Result<(), Error> {
        self.blanks();
        if self.eat(']') {
            return Ok(());
        }
        loop {
            self.blanks();
            push(self.value(colon, depth)?);
            self.blanks();
            if self.eat(']') {
                return Ok(());
            }
            if !self.eat(',') {
                return Err(self.expected("a comma or ]"));
            }
        }
    }

    fn value(&mut self, colon: bool, depth: usize) -> Result<Value, Error> {
        match self.peek() {
            Some('{') => {
                self.next();
                self.message(Some('}'), depth + 1).map(Value::Message)
            }
            Some('<') => {
                self.next();
                self.message(Some('>'), depth + 1).map(Value::Message)
            }
            _ if !colon => Err(self.expected("a colon or {")),
            Some('"' | '\'') => self.strings().map(Value::Text),
            Some(_) => self.word_or_number(),
            None => Err(self.expected("a value")),
        }
    }

    /// A plain name, or `[a.b/c]` of an extension, kept with its brackets.
    fn name(&mut self) -> Result<String, Error> {
        if self.eat('[') {
            let start = self.at();
            while self.peek().is_some_and(is_extension) {
                self.next();
            }
            let inner = self.text[start..self.at()].trim().to_owned();
            if inner.is_empty() || !self.eat(']') {
                return Err(self.expected("an extension's name and ]"));
            }
            return Ok(format!("[{inner}]"));
        }
        let word = self.take_while(is_word);
        if word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Ok(word);
        }
        Err(self.expected("a field's name"))
    }

    fn word_or_number(&mut self) -> Result<Value, Error> {
        let sign = if self.eat('-') {
            self.blanks();
            "-"
        } else {
            ""
        };
        let first = self.peek();
        if first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_') {
            let word = self.take_while(is_word);
            return Ok(Value::Word(format!("{sign}{word}")));
        }
        let start = self.at();
        let mut last = ' ';
        while let Some(c) = self.peek() {
            let exponent_sign = matches!(c, '+' | '-') && matches!(last, 'e' | 'E');
            if !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || exponent_sign) {
                break;
            }
            last = c;
            self.next();
        }
        let digits = &self.text[start..self.at()];
        if is_number(digits) {
            return Ok(Value::Number(format!("{sign}{digits}")));
        }
        Err(match digits {
            "" => self.expected("a value"),
            _ => self.wrong(format!("{digits:?} is no number")),
        })
    }

    fn strings(&mut self) -> Result<String, Error> {
        let mut bytes = Vec::new();
        while let Some(quote @ ('"' | '\'')) = self.peek() {
            self.next();
            self.string(quote, &mut bytes)?;
            self.blanks();
        }
        String::from_utf8(bytes)
            .map_err(|_| self.wrong("a string that is not UTF-8 text".to_owned()))
    }

    fn string(&mut self, quote: char, bytes: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            match self.peek() {
                None | Some('\n') => {
                    return Err(self.expected(&format!("{quote} at a string's end")));
                }
                Some(c) if c == quote => {
                    self.next();
                    return Ok(());
                }
                Some('\\') => {
                    self.next();
                    self.escape(bytes)?;
                }
                Some(c) => {
                    self.next();
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let Some(c) = self.peek() else {
            return Err(self.expected("a character after \\"));
        };
        if c.is_digit(8) {
            // 0377 is the largest; of \777 C++ takes the low byte, and nobody means that.
            let value = self.digits(8, 3);
            bytes.push(
                u8::try_from(value)
                    .map_err(|_| self.wrong("an octal escape above \\377".into()))?,
            );
            return Ok(());
        }
        self.next();
        let plain = match c {
            'n' => b'\n',
            't' => b'\t',
            'r' => b'\r',
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'v' => 11,
            '\\' | '\'' | '"' | '?' => c as u8,
            'x' | 'X' if self.peek().is_some_and(|c| c.is_ascii_hexdigit()) => {
                // Two digits fit into a byte.
                u8::try_from(self.digits(16, 2)).unwrap_or(u8::MAX)
            }
            'u' | 'U' => {
                let count = if c == 'u' { 4 } else { 8 };
                let start = self.at();
                let value = self.digits(16, count);
                let c = char::from_u32(value)
                    .filter(|_| self.at() - start == count)
                    .ok_or_else(|| {
                        self.wrong(format!(
                            "\\{c} without a character's {count} hexadecimal digits"
                        ))
                    })?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.wrong(format!("\\{c} is no escape"))),
        };
        bytes.push(plain);
        Ok(())
    }

    /// At most `count` digits.
    fn digits(&mut self, radix: u32, count: usize) -> u32 {
        let mut value = 0_u32;
        for _ in 0..count {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else {
                break;
            };
            self.next();
            value = value.wrapping_mul(radix).wrapping_add(digit);
        }
        value
    }

    /// White space and comments.
    fn blanks(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.next();
                }
            } else if c.is_ascii_whitespace() || c == '\u{b}' {
                self.next();
            } else {
                return;
            }
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let start = self.at();
        while self.peek().is_some_and(&keep) {
            self.next();
        }
        self.text[start..self.at()].to_owned()
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn next(&mut self) {
        if let Some((at, '\n')) = self.chars.next() {
            self.line += 1;
            self.line_start = at + 1;
        }
    }

    fn eat(&mut self, c: char) -> bool {
        let is_there = self.peek() == Some(c);
        if is_there {
            self.next();
        }
        is_there
    }

    fn at(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn expected(&mut self, what: &str) -> Error {
        let found = match self.peek() {
            Some(c) => format!("{c:?}"),
            None => "the end of the text".to_owned(),
        };
        self.wrong(format!("expected {what}, found {found}"))
    }

    fn wrong(&mut self, what: String) -> Error {
        let at = self.at();
        let column = self.text[self.line_start.min(at)..at].chars().count() + 1;
        Error {
            line: self.line,
            column,
            what,
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_extension(c: char) -> bool {
    is_word(c) || matches!(c, '.' | '/' | '-' | ' ')
}

/// A decimal, octal or hexadecimal whole number, or a decimal fraction with its exponent and `f`.
fn is_number(text: &str) -> bool {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let is_octal = text.len() > 1 && text.starts_with('0');
        return !text.is_empty() && (!is_octal || text.bytes().all(|b| b < b'8'));
    }
    let float = text.strip_suffix(['f', 'F']).unwrap_or(text);
    // Rust reads the same fractions, and `inf` and the like, which start with a letter.
    float.starts_with(|c: char| c.is_ascii_digit() || c == '.') && float.parse::<f64>().is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
