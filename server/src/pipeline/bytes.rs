//! From any bytes to a row of whole numbers: what stands at the beginning, around the middle and at the
//! end, and a number of its own where there is nothing.
//!
//! As Magika reads files: `head` bytes from the start of the first `block` bytes, white space before
//! them left out; `tail` bytes up to the end of the last `block` bytes, white space behind them left out;
//! `middle` bytes around the middle of the whole. The head is padded behind, the tail before, the
//! middle on both sides.

use ortolan_model::BytesInput;

use crate::{
    dtype::DataType,
    signature::{Signature, show_shape},
    tensor::{Elements, Tensor},
};

/// A window and the model that it feeds.
pub struct Bytes {
    input: BytesInput,
    datatype: DataType,
}

impl Bytes {
    /// Checks that the window feeds the model; else a sentence.
    pub fn prepare(input: &BytesInput, signature: &Signature) -> Result<Self, String> {
        let spec = super::only_input("bytes", signature)?;
        let datatype = spec.datatype;
        let takes = match datatype {
            DataType::Uint8 => (0..=255).contains(&input.padding),
            DataType::Int32 | DataType::Int64 | DataType::Fp32 => true,
            _ => false,
        };
        if !takes {
            return Err(format!(
                "the bytes pipeline makes INT32, INT64, FP32, or UINT8 with a padding of 0 to 255, and the input {:?} is {datatype}",
                spec.name
            ));
        }
        let prepared = Self {
            input: input.clone(),
            datatype,
        };
        let shape = prepared.shape();
        spec.accepts(&shape).map_err(|_| {
            format!(
                "the bytes pipeline makes the shape {}, and the input {:?} has {}; set head, middle and tail to match",
                show_shape(&shape),
                spec.name,
                show_shape(&spec.shape)
            )
        })?;
        Ok(prepared)
    }

    /// The shape of the tensor.
    #[must_use]
    pub fn shape(&self) -> Vec<i64> {
        let width = self.input.head + self.input.middle + self.input.tail;
        vec![1, width as i64]
    }

    /// The tensor of one body.
    #[must_use]
    pub fn tensor(&self, body: &[u8]) -> Tensor {
        let values = window(body, &self.input);
        let elements = match self.datatype {
            DataType::Uint8 => Elements::Uint8(values.iter().map(|v| *v as u8).collect()),
            DataType::Int64 => Elements::Int64(values.into_iter().map(i64::from).collect()),
            DataType::Fp32 => Elements::Fp32(values.iter().map(|v| *v as f32).collect()),
            _ => Elements::Int32(values),
        };
        Tensor {
            shape: self.shape(),
            elements,
        }
    }
}

fn window(body: &[u8], wanted: &BytesInput) -> Vec<i32> {
    let block = wanted.block.min(body.len());
    let mut out = Vec::with_capacity(wanted.head + wanted.middle + wanted.tail);
    let numbers =
        |bytes: &[u8], out: &mut Vec<i32>| out.extend(bytes.iter().map(|b| i32::from(*b)));
    let pad = |count: usize, out: &mut Vec<i32>| {
        out.extend(std::iter::repeat_n(wanted.padding, count));
    };

    let mut first = &body[..block];
    if wanted.strip {
        let blank = first.iter().take_while(|b| is_blank(**b)).count();
        first = &first[blank..];
    }
    let first = &first[..first.len().min(wanted.head)];
    numbers(first, &mut out);
    pad(wanted.head - first.len(), &mut out);

    let middle = wanted.middle.min(body.len());
    let start = (body.len() - middle) / 2;
    let before = (wanted.middle - middle) / 2;
    pad(before, &mut out);
    numbers(&body[start..start + middle], &mut out);
    pad(wanted.middle - middle - before, &mut out);

    let mut last = &body[body.len() - block..];
    if wanted.strip {
        let blank = last.iter().rev().take_while(|b| is_blank(**b)).count();
        last = &last[..last.len() - blank];
    }
    let last = &last[last.len() - last.len().min(wanted.tail)..];
    pad(wanted.tail - last.len(), &mut out);
    numbers(last, &mut out);
    out
}

/// What Python's `bytes.strip` takes away.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WANTED: BytesInput = BytesInput {
        head: 4,
        middle: 0,
        tail: 3,
        block: 6,
        padding: 256,
        strip: true,
    };
    const PAD: i32 = 256;

    #[test]
    fn head_and_tail_are_stripped_and_padded_on_their_inner_sides() {
        let table: [(&[u8], [i32; 7]); 5] = [
            (b"", [PAD; 7]),
            (b" \n\x0b\x0c\r\t", [PAD; 7]),
            (b"ab", [97, 98, PAD, PAD, PAD, 97, 98]),
            (b"  abcdefgh \n", [97, 98, 99, 100, 102, 103, 104]),
            // Only the first block is looked at: its white space hides what comes after.
            (b"      abcdef", [PAD, PAD, PAD, PAD, 100, 101, 102]),
        ];
        for (body, expected) in table {
            assert_eq!(window(body, &WANTED), expected, "{body:?}");
        }
    }

    #[test]
    fn the_middle_is_the_middle_and_padded_on_both_sides() {
        let wanted = BytesInput {
            head: 0,
            middle: 3,
            tail: 0,
            strip: false,
            ..WANTED
        };
        assert_eq!(window(b"abcdefg", &wanted), [99, 100, 101]);
        assert_eq!(window(b"a", &wanted), [PAD, 97, PAD]);
        assert_eq!(window(b"ab", &wanted), [97, 98, PAD]);
    }

    proptest! {
        #[test]
        fn the_window_has_its_width_whatever_the_body(
            body in proptest::collection::vec(any::<u8>(), 0..40),
            head in 0_usize..9, middle in 0_usize..9, tail in 0_usize..9, more in 0_usize..9,
            strip: bool,
        ) {
            let wanted = BytesInput { head, middle, tail, block: head.max(tail) + more, padding: -1, strip };
            prop_assert_eq!(window(&body, &wanted).len(), head + middle + tail);
        }
    }
}
