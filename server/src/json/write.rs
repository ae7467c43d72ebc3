//! Writes an output tensor's elements as JSON.
//!
//! Numbers are the shortest that read back as the same value of their datatype. JSON has no NaN and
//! no infinity: they become the strings `"NaN"`, `"Infinity"` and `"-Infinity"`.

use half::{bf16, f16};

use crate::tensor::{View, each_slice};

/// How the elements are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One flat array.
    Flat,
    /// An array for each dimension.
    Nested,
}

/// Appends the elements of a tensor of the shape `shape` to `out`.
pub fn elements(out: &mut Vec<u8>, elements: View<'_>, shape: &[i64], layout: Layout) {
    let flat = [elements.len() as i64];
    let dims: &[i64] = match layout {
        Layout::Flat => &flat,
        Layout::Nested => shape,
    };
    if elements.is_empty() {
        empty(out, dims);
        return;
    }
    each_slice!(elements, slice => nest(out, dims, slice));
}

fn empty(out: &mut Vec<u8>, dims: &[i64]) {
    let Some((first, rest)) = dims.split_first() else {
        return;
    };
    out.push(b'[');
    for index in 0..*first {
        if index > 0 {
            out.push(b',');
        }
        empty(out, rest);
    }
    out.push(b']');
}

fn nest<T: Written>(out: &mut Vec<u8>, dims: &[i64], elements: &[T]) {
    match dims {
        [] => {
            if let [element] = elements {
                element.write(out);
            }
        }
        [_] => {
            // Room for most numbers at once: growing by halves copies what was written.
            out.reserve(elements.len() * 8 + 2);
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                element.write(out);
            }
            out.push(b']');
        }
        [first, rest @ ..] => {
            let rows = usize::try_from(*first).unwrap_or(1).max(1);
            out.push(b'[');
            for (index, row) in elements
                .chunks(elements.len().div_ceil(rows).max(1))
                .enumerate()
            {
                if index > 0 {
                    out.push(b',');
                }
                nest(out, rest, row);
            }
            out.push(b']');
        }
    }
}

trait Written {
    fn write(&self, out: &mut Vec<u8>);
}

macro_rules! whole {
    ($($kind:ty),+) => {$(
        impl Written for $kind {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
            }
        }
    )+};
}
whole!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Written for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

macro_rules! float {
    ($($kind:ty),+) => {$(
        impl Written for $kind {
            fn write(&self, out: &mut Vec<u8>) {
                if self.is_finite() {
                    out.extend_from_slice(zmij::Buffer::new().format_finite(*self).as_bytes());
                } else {
                    out.extend_from_slice(special(f64::from(*self)).as_bytes());
                }
            }
        }
    )+};
}
float!(f32, f64);

impl Written for f16 {
    fn write(&self, out: &mut Vec<u8>) {
        self.to_f32().write(out);
    }
}

impl Written for bf16 {
    fn write(&self, out: &mut Vec<u8>) {
        self.to_f32().write(out);
    }
}

fn special(value: f64) -> &'static str {
    if value.is_nan() {
        "\"NaN\""
    } else if value > 0.0 {
        "\"Infinity\""
    } else {
        "\"-Infinity\""
    }
}

impl Written for String {
    fn write(&self, out: &mut Vec<u8>) {
        string(out, self);
    }
}

/// Appends a JSON string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec cannot fail, and a str always is a JSON string.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written<T: Written>(dims: &[i64], elements: &[T]) -> String {
        let mut out = Vec::new();
        nest(&mut out, dims, elements);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nesting_follows_the_dimensions() {
        assert_eq!(
            written(&[2, 3], &[1_u8, 2, 3, 4, 5, 6]),
            "[[1,2,3],[4,5,6]]"
        );
        assert_eq!(
            written(&[4], &[true, false, true, true]),
            "[true,false,true,true]"
        );
        assert_eq!(written(&[], &[7_i64]), "7");
        let mut out = Vec::new();
        empty(&mut out, &[2, 0]);
        assert_eq!(out, b"[[],[]]");
    }

    #[test]
    fn floats_are_the_shortest_that_read_back() {
        assert_eq!(written(&[3], &[0.1_f32, 1e-45, 3.0]), "[0.1,1e-45,3.0]");
        assert_eq!(written(&[1], &[f16::from_f32(0.1)]), "[0.099975586]");
        assert_eq!(
            written(&[3], &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
            r#"["NaN","Infinity","-Infinity"]"#
        );
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(
            written(&[1], &["a\"\n\u{1}ü".to_owned()]),
            r#"["a\"\n\u0001ü"]"#
        );
    }
}
