//! Reads the `data` of a tensor: an array of elements, flat or nested, into a typed buffer.
//!
//! Input: text that serde_json has already found to be one well-formed JSON value. Output: the
//! elements and the shape that the nesting shows. Every number is read exactly; one that its
//! datatype cannot hold is an error, never rounded to something else. JSON has no NaN and no infinity:
//! they are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`, as ProtoJSON writes them.

use half::{bf16, f16};

use crate::{
    dtype::DataType,
    tensor::{Elements, each_buffer},
};

/// Deeper than any tensor; keeps a hostile body's brackets cheap.
const MAX_DEPTH: usize = 32;

/// Why data could not be read; each reads on after "input NAME: ".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// An element of the wrong kind or out of range.
    #[error("element {index} is {found}, expected {expected}")]
    Element {
        /// Counted from 0, row by row.
        index: usize,
        /// As it stands in the body, shortened.
        found: String,
        /// What its datatype wants.
        expected: String,
    },
    /// Rows of different lengths or depths.
    #[error("the nested data is ragged at element {index}: rows at one depth must have one length")]
    Ragged {
        /// Counted from 0, row by row.
        index: usize,
    },
    /// More brackets than any tensor has dimensions.
    #[error("the data is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Appends the elements of `raw` to `into` and gives the shape that the nesting shows:
/// `[]` for a bare element, `[n]` for a flat array.
pub fn read(raw: &str, datatype: DataType, into: &mut Elements) -> Result<Vec<i64>, DataError> {
    each_buffer!(into, buffer => scan(raw.as_bytes(), datatype, buffer))
}

/// What the brackets say of the shape.
struct Nesting {
    /// The length at each depth, once an array of that depth was closed.
    lengths: Vec<Option<usize>>,
    /// Children seen in each open array.
    open: Vec<usize>,
    /// The depth at which elements stand.
    leaf_depth: Option<usize>,
}

impl Nesting {
    fn child(&mut self) {
        if let Some(count) = self.open.last_mut() {
            *count += 1;
        }
    }

    fn push(&mut self) -> Result<(), DataError> {
        self.child();
        self.open.push(0);
        if self.open.len() > MAX_DEPTH {
            return Err(DataError::TooDeep);
        }
        if self.lengths.len() < self.open.len() {
            self.lengths.push(None);
        }
        Ok(())
    }

    fn pop(&mut self) -> bool {
        let Some(count) = self.open.pop() else {
            return false;
        };
        let length = &mut self.lengths[self.open.len()];
        *length.get_or_insert(count) == count
    }

    fn leaf(&mut self) -> bool {
        self.child();
        *self.leaf_depth.get_or_insert(self.open.len()) == self.open.len()
    }

    fn shape(&self) -> Vec<i64> {
        self.lengths
            .iter()
            .map(|length| length.unwrap_or(0) as i64)
            .collect()
    }

    /// Elements stand at the deepest level, or there are none at all.
    fn is_even(&self) -> bool {
        self.leaf_depth
            .is_none_or(|depth| depth == self.lengths.len())
    }
}

fn scan<T: Element>(
    raw: &[u8],
    datatype: DataType,
    into: &mut Vec<T>,
) -> Result<Vec<i64>, DataError> {
    let mut nesting = Nesting {
        lengths: Vec::new(),
        open: Vec::new(),
        leaf_depth: None,
    };
    let first = into.len();
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' | b',' => at += 1,
            b'[' => {
                nesting.push()?;
                at += 1;
            }
            b']' => {
                if !nesting.pop() {
                    return Err(DataError::Ragged {
                        index: into.len() - first,
                    });
                }
                at += 1;
            }
            _ => {
                let index = into.len() - first;
                let rest = &raw[at..];
                let Some((element, length)) = T::read(rest) else {
                    return Err(DataError::Element {
                        index,
                        found: shown(rest),
                        expected: expected(datatype),
                    });
                };
                if !nesting.leaf() {
                    return Err(DataError::Ragged { index });
                }
                into.push(element);
                at += length;
            }
        }
    }
    if !nesting.is_even() {
        return Err(DataError::Ragged {
            index: into.len() - first,
        });
    }
    Ok(nesting.shape())
}

/// The element as it stands in the body, at most 32 characters of it.
fn shown(rest: &[u8]) -> String {
    let text = String::from_utf8_lossy(&rest[..rest.len().min(200)]).into_owned();
    let end = match text.as_bytes().first() {
        Some(b'"') => string_end(text.as_bytes()).unwrap_or(text.len()),
        Some(b'{') => return "an object".to_owned(),
        _ => text
            .find([',', ']', '}', ' ', '\n', '\r', '\t'])
            .unwrap_or(text.len()),
    };
    let short: String = text[..end].chars().take(32).collect();
    if short.len() < end {
        format!("{short}…")
    } else {
        short
    }
}

fn expected(datatype: DataType) -> String {
    let range = |low: i64, high: u64| format!("a whole number from {low} to {high} ({datatype})");
    match datatype {
        DataType::Bool => format!("true or false ({datatype})"),
        DataType::Uint8 => range(0, u8::MAX.into()),
        DataType::Uint16 => range(0, u16::MAX.into()),
        DataType::Uint32 => range(0, u32::MAX.into()),
        DataType::Uint64 => range(0, u64::MAX),
        DataType::Int8 => range(i8::MIN.into(), i8::MAX as u64),
        DataType::Int16 => range(i16::MIN.into(), i16::MAX as u64),
        DataType::Int32 => range(i32::MIN.into(), i32::MAX as u64),
        DataType::Int64 => range(i64::MIN, i64::MAX as u64),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
            format!("a number that {datatype} can hold, or \"NaN\", \"Infinity\" or \"-Infinity\"")
        }
        DataType::Bytes => format!("a string ({datatype})"),
    }
}

/// One element at the start of the text, with its length in bytes.
trait Element: Sized {
    fn read(text: &[u8]) -> Option<(Self, usize)>;
}

/// A number must end where the element ends: `1.5` is no whole number, `1` with something behind it.
fn ends(text: &[u8], length: usize) -> bool {
    matches!(
        text.get(length),
        None | Some(b',' | b']' | b' ' | b'\n' | b'\r' | b'\t')
    )
}

macro_rules! whole {
    ($($kind:ty),+) => {$(
        impl Element for $kind {
            fn read(text: &[u8]) -> Option<(Self, usize)> {
                let negative = text.first() == Some(&b'-');
                let start = usize::from(negative);
                let mut value: $kind = 0;
                let mut length = start;
                while let Some(digit) = text.get(length).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
                    let ten = value.checked_mul(10)?;
                    // Negative numbers are built downwards: the least one has no positive twin.
                    value = if negative { ten.checked_sub(digit as $kind)? } else { ten.checked_add(digit as $kind)? };
                    length += 1;
                }
                (length > start && ends(text, length)).then_some((value, length))
            }
        }
    )+};
}
whole!(u8, u16, u32, u64, i16, i32, i64);

impl Element for i8 {
    fn read(text: &[u8]) -> Option<(Self, usize)> {
        let (value, length) = i16::read(text)?;
        Some((value.try_into().ok()?, length))
    }
}

macro_rules! float {
    ($kind:ty, $parsed:ty, $convert:expr) => {
        impl Element for $kind {
            fn read(text: &[u8]) -> Option<(Self, usize)> {
                if text.first() == Some(&b'"') {
                    let (value, length) = special(text)?;
                    return Some(($convert(value as $parsed), length));
                }
                let (value, length) = fast_float2::parse_partial::<$parsed, _>(text).ok()?;
                let value: $kind = $convert(value);
                (value.is_finite() && ends(text, length)).then_some((value, length))
            }
        }
    };
}
float!(f32, f32, |value| value);
float!(f64, f64, |value| value);
float!(f16, f64, f16::from_f64);
float!(bf16, f64, bf16::from_f64);

fn special(text: &[u8]) -> Option<(f64, usize)> {
    let known = [
        (&b"\"NaN\""[..], f64::NAN),
        (b"\"Infinity\"", f64::INFINITY),
        (b"\"-Infinity\"", f64::NEG_INFINITY),
    ];
    let (name, value) = known.into_iter().find(|(name, _)| text.starts_with(name))?;
    Some((value, name.len()))
}

impl Element for bool {
    fn read(text: &[u8]) -> Option<(Self, usize)> {
        let known = [
            (&b"true"[..], true),
            (b"false", false),
            (b"1", true),
            (b"0", false),
        ];
        let (name, value) = known.into_iter().find(|(name, _)| text.starts_with(name))?;
        ends(text, name.len()).then_some((value, name.len()))
    }
}

impl Element for String {
    fn read(text: &[u8]) -> Option<(Self, usize)> {
        let length = string_end(text)?;
        let quoted = std::str::from_utf8(&text[..length]).ok()?;
        let inner = &quoted[1..length - 1];
        let value = if inner.contains('\\') {
            serde_json::from_str(quoted).ok()?
        } else {
            inner.to_owned()
        };
        Some((value, length))
    }
}

/// The length of the JSON string at the start of the text, with both quotes.
fn string_end(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(raw: &str, datatype: DataType) -> Result<(Elements, Vec<i64>), String> {
        let mut elements = Elements::with_capacity(datatype, 0);
        let shape = read(raw, datatype, &mut elements).map_err(|error| error.to_string())?;
        Ok((elements, shape))
    }

    #[test]
    fn nesting_is_the_shape() {
        let (elements, shape) = read_as(" [ [1, 2,3] ,[4,5,6]] ", DataType::Int32).unwrap();
        assert_eq!(elements, Elements::Int32(vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(shape, [2, 3]);
        assert_eq!(read_as("[[],[]]", DataType::Int32).unwrap().1, [2, 0]);
        assert_eq!(read_as("[]", DataType::Fp32).unwrap().1, [0]);
        assert_eq!(
            read_as("7", DataType::Uint8).unwrap(),
            (Elements::Uint8(vec![7]), vec![])
        );
    }

    #[test]
    fn ragged_rows_are_refused() {
        for raw in ["[[1,2],[3]]", "[1,[2]]", "[[1],2]", "[[],1]", "[[[1]],[]]"] {
            let sentence = read_as(raw, DataType::Int64).unwrap_err();
            assert!(sentence.contains("ragged"), "{raw}: {sentence}");
        }
        let deep = "[".repeat(40) + &"]".repeat(40);
        assert!(
            read_as(&deep, DataType::Int64)
                .unwrap_err()
                .contains("deeper")
        );
    }

    #[test]
    fn the_largest_and_the_least_whole_numbers_are_exact() {
        let (elements, _) = read_as("[18446744073709551615]", DataType::Uint64).unwrap();
        assert_eq!(elements, Elements::Uint64(vec![u64::MAX]));
        let (elements, _) =
            read_as("[-9223372036854775808,9007199254740993]", DataType::Int64).unwrap();
        assert_eq!(
            elements,
            Elements::Int64(vec![i64::MIN, 9_007_199_254_740_993])
        );
        let (elements, _) = read_as("[-128,127]", DataType::Int8).unwrap();
        assert_eq!(elements, Elements::Int8(vec![-128, 127]));
    }

    #[test]
    fn what_a_datatype_cannot_hold_is_named_with_its_place() {
        let table = [
            ("[1,2,256]", DataType::Uint8, "element 2 is 256"),
            ("[-1]", DataType::Uint64, "element 0 is -1"),
            ("[1.5]", DataType::Int32, "element 0 is 1.5"),
            ("[1e3]", DataType::Int32, "element 0 is 1e3"),
            (
                "[18446744073709551616]",
                DataType::Uint64,
                "element 0 is 18446744073709551616",
            ),
            ("[\"7\"]", DataType::Int16, "element 0 is \"7\""),
            ("[null]", DataType::Fp32, "element 0 is null"),
            ("[1e39]", DataType::Fp32, "element 0 is 1e39"),
            ("[70000]", DataType::Fp16, "element 0 is 70000"),
            ("[true]", DataType::Fp64, "element 0 is true"),
            ("[2]", DataType::Bool, "element 0 is 2"),
            ("[5]", DataType::Bytes, "element 0 is 5"),
            ("[{\"a\":1}]", DataType::Fp32, "element 0 is an object"),
        ];
        for (raw, datatype, start) in table {
            let sentence = read_as(raw, datatype).unwrap_err();
            assert!(sentence.starts_with(start), "{raw}: {sentence}");
            assert!(sentence.contains(datatype.as_str()), "{raw}: {sentence}");
        }
    }

    #[test]
    fn numbers_that_are_none_come_as_strings() {
        let (Elements::Fp32(values), _) = read_as(
            "[\"NaN\",\"Infinity\",\"-Infinity\",-0.0,1e-45]",
            DataType::Fp32,
        )
        .unwrap() else {
            panic!("FP32 is read as FP32");
        };
        assert!(values[0].is_nan());
        assert_eq!(values[1..3], [f32::INFINITY, f32::NEG_INFINITY]);
        assert!(values[3].is_sign_negative());
        assert_eq!(values[4], f32::from_bits(1));
    }

    #[test]
    fn strings_keep_their_escapes_and_brackets() {
        let (elements, shape) = read_as(r#"[["a]\"[", "ü\u00e9\n"]]"#, DataType::Bytes).unwrap();
        assert_eq!(
            elements,
            Elements::Bytes(vec!["a]\"[".into(), "üé\n".into()])
        );
        assert_eq!(shape, [1, 2]);
    }
}
