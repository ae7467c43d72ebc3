//! Tensors as bytes: the elements row by row, little endian, without padding. The V2 protocol calls this
//! binary tensor data over REST and raw contents over gRPC.
//!
//! BOOL is one byte, 0 or 1. A BYTES element is its length in four bytes, then so many bytes of UTF-8.
//! Numbers are copied once each way; their bits are not touched.

use bytemuck::AnyBitPattern;
use half::{bf16, f16};

use crate::{
    dtype::DataType,
    tensor::{Elements, View},
};

#[cfg(target_endian = "big")]
compile_error!("tensors are copied as they lie in memory, which must be little endian");

/// The length before a BYTES element.
const PREFIX: usize = 4;

/// Why bytes are no such tensor; each reads on after "input NAME: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BinaryError {
    /// Too few or too many bytes for the shape.
    #[error("has {got} bytes of binary data, expected {expected}: {count} elements of {datatype}")]
    Size {
        /// What came.
        got: usize,
        /// What the shape asks for.
        expected: String,
        /// The shape's product.
        count: usize,
        /// Of the input.
        datatype: DataType,
    },
    /// A BOOL that is neither.
    #[error("element {index} is the byte {found}, expected 0 or 1 (BOOL)")]
    Bool {
        /// Counted from 0, row by row.
        index: usize,
        /// The byte.
        found: u8,
    },
    /// A BYTES element ends after the data.
    #[error(
        "element {index} of {count} begins with its length in 4 bytes, then as many bytes (BYTES): \
         {needed} bytes are needed there and {left} are left"
    )]
    Cut {
        /// Counted from 0, row by row.
        index: usize,
        /// The shape's product.
        count: usize,
        /// Of the length, or of the element.
        needed: usize,
        /// Of the data.
        left: usize,
    },
    /// More data than elements.
    #[error("{left} bytes are left after the {count} elements that the shape asks for (BYTES)")]
    Left {
        /// Of the data.
        left: usize,
        /// The shape's product.
        count: usize,
    },
    /// ONNX's strings are UTF-8.
    #[error("element {index} is not UTF-8, and ONNX has no other strings (BYTES)")]
    NoText {
        /// Counted from 0, row by row.
        index: usize,
    },
}

/// Bytes of one element; `None` for BYTES, whose elements have lengths of their own.
#[must_use]
pub const fn width(datatype: DataType) -> Option<usize> {
    Some(match datatype {
        DataType::Bool | DataType::Uint8 | DataType::Int8 => 1,
        DataType::Uint16 | DataType::Int16 | DataType::Fp16 | DataType::Bf16 => 2,
        DataType::Uint32 | DataType::Int32 | DataType::Fp32 => 4,
        DataType::Uint64 | DataType::Int64 | DataType::Fp64 => 8,
        DataType::Bytes => return None,
    })
}

/// Reads `count` elements: all of `raw`, no more and no less.
pub fn read(raw: &[u8], datatype: DataType, count: usize) -> Result<Elements, BinaryError> {
    if let Some(width) = width(datatype) {
        let expected = count as u128 * width as u128;
        if raw.len() as u128 != expected {
            return Err(BinaryError::Size {
                got: raw.len(),
                expected: expected.to_string(),
                count,
                datatype,
            });
        }
    }
    Ok(match datatype {
        DataType::Bool => Elements::Bool(bools(raw)?),
        DataType::Uint8 => Elements::Uint8(raw.to_vec()),
        DataType::Uint16 => Elements::Uint16(numbers(raw)),
        DataType::Uint32 => Elements::Uint32(numbers(raw)),
        DataType::Uint64 => Elements::Uint64(numbers(raw)),
        DataType::Int8 => Elements::Int8(numbers(raw)),
        DataType::Int16 => Elements::Int16(numbers(raw)),
        DataType::Int32 => Elements::Int32(numbers(raw)),
        DataType::Int64 => Elements::Int64(numbers(raw)),
        DataType::Fp16 => Elements::Fp16(numbers(raw)),
        DataType::Bf16 => Elements::Bf16(numbers(raw)),
        DataType::Fp32 => Elements::Fp32(numbers(raw)),
        DataType::Fp64 => Elements::Fp64(numbers(raw)),
        DataType::Bytes => Elements::Bytes(strings(raw, count)?),
    })
}

fn bools(raw: &[u8]) -> Result<Vec<bool>, BinaryError> {
    let read = |(index, byte): (usize, &u8)| match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(BinaryError::Bool {
            index,
            found: *byte,
        }),
    };
    raw.iter().enumerate().map(read).collect()
}

/// Where the bytes happen to be aligned this is one `memcpy`; else a loop that the compiler makes as good.
fn numbers<T: Number>(raw: &[u8]) -> Vec<T> {
    match bytemuck::try_cast_slice(raw) {
        Ok(aligned) => aligned.to_vec(),
        Err(_) => T::gather(raw),
    }
}

trait Number: AnyBitPattern + Clone {
    fn gather(raw: &[u8]) -> Vec<Self>;
}

macro_rules! number {
    ($($kind:ty),+) => {$(
        impl Number for $kind {
            fn gather(raw: &[u8]) -> Vec<Self> {
                let (elements, _) = raw.as_chunks::<{ size_of::<$kind>() }>();
                elements.iter().map(|bytes| <$kind>::from_le_bytes(*bytes)).collect()
            }
        }
    )+};
}
number!(u16, u32, u64, i8, i16, i32, i64, f16, bf16, f32, f64);

fn strings(raw: &[u8], count: usize) -> Result<Vec<String>, BinaryError> {
    // What a hostile shape claims reserves nothing: an element takes four bytes at least.
    let mut elements = Vec::with_capacity(count.min(raw.len() / PREFIX + 1));
    let mut rest = raw;
    for index in 0..count {
        let cut = |needed, left| BinaryError::Cut {
            index,
            count,
            needed,
            left,
        };
        let Some((length, data)) = rest.split_first_chunk::<PREFIX>() else {
            return Err(cut(PREFIX, rest.len()));
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((element, after)) = data.split_at_checked(length) else {
            return Err(cut(length, data.len()));
        };
        let text = std::str::from_utf8(element).map_err(|_| BinaryError::NoText { index })?;
        elements.push(text.to_owned());
        rest = after;
    }
    if rest.is_empty() {
        Ok(elements)
    } else {
        Err(BinaryError::Left {
            left: rest.len(),
            count,
        })
    }
}

/// Appends the elements of a tensor.
pub fn write(out: &mut Vec<u8>, elements: View<'_>) {
    match elements {
        View::Bytes(strings) => write_strings(out, strings),
        // Numbers lie in memory as the protocol wants them.
        numbers => out.extend_from_slice(numbers.bytes().unwrap_or_default()),
    }
}

/// What `write` appends, in bytes.
#[must_use]
pub fn size(elements: View<'_>) -> usize {
    match elements {
        View::Bytes(strings) => strings_size(strings),
        numbers => numbers.bytes().map_or(0, <[u8]>::len),
    }
}

fn write_strings<S: AsRef<str>>(out: &mut Vec<u8>, elements: &[S]) {
    out.reserve(strings_size(elements));
    for element in elements {
        let bytes = element.as_ref().as_bytes();
        // No request brings and no model makes a string of four gigabytes.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&bytes[..length as usize]);
    }
}

fn strings_size<S: AsRef<str>>(elements: &[S]) -> usize {
    elements
        .iter()
        .map(|element| PREFIX + element.as_ref().len())
        .sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tensor::each_buffer;

    fn text(elements: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        write_strings(&mut out, elements);
        out
    }

    #[test]
    fn every_width_is_the_size_of_its_elements() {
        for datatype in DataType::ALL {
            let elements = Elements::with_capacity(datatype, 0);
            let size = each_buffer!(&elements, buffer => element_size(buffer));
            if datatype != DataType::Bytes {
                assert_eq!(width(datatype), Some(size), "{datatype}");
            }
        }
    }

    fn element_size<T>(_: &[T]) -> usize {
        size_of::<T>()
    }

    #[test]
    fn an_aligned_and_a_shifted_buffer_give_the_same_numbers() {
        let values = [0.1_f64, -0.0, f64::MAX, f64::MIN_POSITIVE];
        let mut raw = vec![0xff];
        write(&mut raw, View::Fp64(&values));
        for shift in 0..8 {
            let mut shifted = vec![0; shift];
            shifted.extend_from_slice(&raw[1..]);
            let read = read(&shifted[shift..], DataType::Fp64, 4).unwrap();
            assert_eq!(read, Elements::Fp64(values.to_vec()), "shifted by {shift}");
        }
    }

    #[test]
    fn a_wrong_number_of_bytes_is_said_with_the_right_one() {
        for (bytes, datatype, count, expected) in [
            (7, DataType::Fp32, 2, "8"),
            (0, DataType::Bool, 1, "1"),
            (9, DataType::Int64, 1, "8"),
            (8, DataType::Bf16, usize::MAX, "36893488147419103230"),
        ] {
            let sentence = read(&vec![0; bytes], datatype, count)
                .unwrap_err()
                .to_string();
            assert!(
                sentence.contains(&format!("has {bytes} bytes")),
                "{sentence}"
            );
            assert!(
                sentence.contains(&format!("expected {expected}:")),
                "{sentence}"
            );
        }
    }

    #[test]
    fn a_bool_is_zero_or_one() {
        assert_eq!(
            read(&[1, 0, 1], DataType::Bool, 3),
            Ok(Elements::Bool(vec![true, false, true]))
        );
        assert_eq!(
            read(&[1, 2], DataType::Bool, 2),
            Err(BinaryError::Bool { index: 1, found: 2 })
        );
    }

    #[test]
    fn strings_have_their_lengths_before_them() {
        let raw = text(&["", "a\0b", "🦜"]);
        assert_eq!(raw, b"\0\0\0\0\x03\0\0\0a\0b\x04\0\0\0\xf0\x9f\xa6\x9c");
        let expected = ["", "a\0b", "🦜"].map(str::to_owned).to_vec();
        assert_eq!(
            read(&raw, DataType::Bytes, 3),
            Ok(Elements::Bytes(expected))
        );
        assert_eq!(
            read(&[], DataType::Bytes, 0),
            Ok(Elements::Bytes(Vec::new()))
        );
    }

    #[test]
    fn broken_strings_are_told_apart() {
        let whole = text(&["abc", "de"]);
        let cut = |index, needed, left| BinaryError::Cut {
            index,
            count: 2,
            needed,
            left,
        };
        assert_eq!(
            read(&whole[..12], DataType::Bytes, 2),
            Err(cut(1, 2, 1)),
            "the element is cut"
        );
        assert_eq!(
            read(&whole[..9], DataType::Bytes, 2),
            Err(cut(1, 4, 2)),
            "the length is cut"
        );
        assert_eq!(
            read(&whole, DataType::Bytes, 1),
            Err(BinaryError::Left { left: 6, count: 1 })
        );
        assert_eq!(
            read(b"\x01\0\0\0\xff", DataType::Bytes, 1),
            Err(BinaryError::NoText { index: 0 })
        );
        // Four gigabytes are claimed and not there.
        assert!(read(b"\xff\xff\xff\xff", DataType::Bytes, usize::MAX).is_err());
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(words in proptest::collection::vec(".*", 0..20)) {
            let mut raw = Vec::new();
            write_strings(&mut raw, &words);
            prop_assert_eq!(raw.len(), strings_size(&words));
            prop_assert_eq!(read(&raw, DataType::Bytes, words.len()), Ok(Elements::Bytes(words)));
        }

        #[test]
        fn any_bytes_are_a_tensor_or_an_error(
            raw in proptest::collection::vec(any::<u8>(), 0..64),
            kind in 0..DataType::ALL.len(),
            count in 0..20_usize,
        ) {
            let datatype = DataType::ALL[kind];
            if let Ok(elements) = read(&raw, datatype, count) {
                prop_assert_eq!(elements.len(), count);
                let mut written = Vec::new();
                write(&mut written, elements.view());
                prop_assert_eq!(size(elements.view()), written.len());
                prop_assert_eq!(written, raw, "every bit is kept");
            }
        }
    }
}
