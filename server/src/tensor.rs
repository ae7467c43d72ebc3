//! A tensor as requests bring it: a typed buffer with its shape, handed to ONNX Runtime without a copy;
//! and a view of elements, whoever holds them.

use half::{bf16, f16};
use ort::{
    session::SessionInputValue,
    value::{PrimitiveTensorElementType, Tensor as OrtTensor},
};

use crate::dtype::DataType;

/// The elements, by datatype.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // each holds what it says
pub enum Elements {
    Bool(Vec<bool>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Fp16(Vec<f16>),
    Bf16(Vec<bf16>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Bytes(Vec<String>),
}

/// Runs `$body` with `$buffer` bound to the typed buffer, whichever it is.
macro_rules! each_buffer {
    ($elements:expr, $buffer:ident => $body:expr) => {
        match $elements {
            Elements::Bool($buffer) => $body,
            Elements::Uint8($buffer) => $body,
            Elements::Uint16($buffer) => $body,
            Elements::Uint32($buffer) => $body,
            Elements::Uint64($buffer) => $body,
            Elements::Int8($buffer) => $body,
            Elements::Int16($buffer) => $body,
            Elements::Int32($buffer) => $body,
            Elements::Int64($buffer) => $body,
            Elements::Fp16($buffer) => $body,
            Elements::Bf16($buffer) => $body,
            Elements::Fp32($buffer) => $body,
            Elements::Fp64($buffer) => $body,
            Elements::Bytes($buffer) => $body,
        }
    };
}
pub(crate) use each_buffer;

/// Elements that somebody else holds: a request's buffer, ONNX Runtime's output, some rows of it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // each shows what it says
pub enum View<'a> {
    Bool(&'a [bool]),
    Uint8(&'a [u8]),
    Uint16(&'a [u16]),
    Uint32(&'a [u32]),
    Uint64(&'a [u64]),
    Int8(&'a [i8]),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Fp16(&'a [f16]),
    Bf16(&'a [bf16]),
    Fp32(&'a [f32]),
    Fp64(&'a [f64]),
    Bytes(&'a [String]),
}

/// Runs `$body` with `$slice` bound to the typed slice, whichever it is.
macro_rules! each_slice {
    ($view:expr, $slice:ident => $body:expr) => {
        match $view {
            View::Bool($slice) => $body,
            View::Uint8($slice) => $body,
            View::Uint16($slice) => $body,
            View::Uint32($slice) => $body,
            View::Uint64($slice) => $body,
            View::Int8($slice) => $body,
            View::Int16($slice) => $body,
            View::Int32($slice) => $body,
            View::Int64($slice) => $body,
            View::Fp16($slice) => $body,
            View::Bf16($slice) => $body,
            View::Fp32($slice) => $body,
            View::Fp64($slice) => $body,
            View::Bytes($slice) => $body,
        }
    };
}
pub(crate) use each_slice;

/// Elements with their shape: as many elements as the shape's product, all dimensions known.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The dimensions.
    pub shape: Vec<i64>,
    /// The elements, row by row.
    pub elements: Elements,
}

impl Elements {
    /// An empty buffer with room for `capacity` elements.
    #[must_use]
    pub fn with_capacity(datatype: DataType, capacity: usize) -> Self {
        match datatype {
            DataType::Bool => Self::Bool(Vec::with_capacity(capacity)),
            DataType::Uint8 => Self::Uint8(Vec::with_capacity(capacity)),
            DataType::Uint16 => Self::Uint16(Vec::with_capacity(capacity)),
            DataType::Uint32 => Self::Uint32(Vec::with_capacity(capacity)),
            DataType::Uint64 => Self::Uint64(Vec::with_capacity(capacity)),
            DataType::Int8 => Self::Int8(Vec::with_capacity(capacity)),
            DataType::Int16 => Self::Int16(Vec::with_capacity(capacity)),
            DataType::Int32 => Self::Int32(Vec::with_capacity(capacity)),
            DataType::Int64 => Self::Int64(Vec::with_capacity(capacity)),
            DataType::Fp16 => Self::Fp16(Vec::with_capacity(capacity)),
            DataType::Bf16 => Self::Bf16(Vec::with_capacity(capacity)),
            DataType::Fp32 => Self::Fp32(Vec::with_capacity(capacity)),
            DataType::Fp64 => Self::Fp64(Vec::with_capacity(capacity)),
            DataType::Bytes => Self::Bytes(Vec::with_capacity(capacity)),
        }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        each_buffer!(self, buffer => buffer.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends elements of the same datatype; of another datatype nothing.
    pub fn extend(&mut self, more: View<'_>) {
        match (self, more) {
            (Self::Bool(to), View::Bool(from)) => to.extend_from_slice(from),
            (Self::Uint8(to), View::Uint8(from)) => to.extend_from_slice(from),
            (Self::Uint16(to), View::Uint16(from)) => to.extend_from_slice(from),
            (Self::Uint32(to), View::Uint32(from)) => to.extend_from_slice(from),
            (Self::Uint64(to), View::Uint64(from)) => to.extend_from_slice(from),
            (Self::Int8(to), View::Int8(from)) => to.extend_from_slice(from),
            (Self::Int16(to), View::Int16(from)) => to.extend_from_slice(from),
            (Self::Int32(to), View::Int32(from)) => to.extend_from_slice(from),
            (Self::Int64(to), View::Int64(from)) => to.extend_from_slice(from),
            (Self::Fp16(to), View::Fp16(from)) => to.extend_from_slice(from),
            (Self::Bf16(to), View::Bf16(from)) => to.extend_from_slice(from),
            (Self::Fp32(to), View::Fp32(from)) => to.extend_from_slice(from),
            (Self::Fp64(to), View::Fp64(from)) => to.extend_from_slice(from),
            (Self::Bytes(to), View::Bytes(from)) => to.extend_from_slice(from),
            (_, _) => {}
        }
    }

    /// The elements to look at.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        match self {
            Self::Bool(buffer) => View::Bool(buffer),
            Self::Uint8(buffer) => View::Uint8(buffer),
            Self::Uint16(buffer) => View::Uint16(buffer),
            Self::Uint32(buffer) => View::Uint32(buffer),
            Self::Uint64(buffer) => View::Uint64(buffer),
            Self::Int8(buffer) => View::Int8(buffer),
            Self::Int16(buffer) => View::Int16(buffer),
            Self::Int32(buffer) => View::Int32(buffer),
            Self::Int64(buffer) => View::Int64(buffer),
            Self::Fp16(buffer) => View::Fp16(buffer),
            Self::Bf16(buffer) => View::Bf16(buffer),
            Self::Fp32(buffer) => View::Fp32(buffer),
            Self::Fp64(buffer) => View::Fp64(buffer),
            Self::Bytes(buffer) => View::Bytes(buffer),
        }
    }
}

impl<'a> View<'a> {
    /// Of the elements.
    #[must_use]
    pub const fn datatype(&self) -> DataType {
        match self {
            Self::Bool(_) => DataType::Bool,
            Self::Uint8(_) => DataType::Uint8,
            Self::Uint16(_) => DataType::Uint16,
            Self::Uint32(_) => DataType::Uint32,
            Self::Uint64(_) => DataType::Uint64,
            Self::Int8(_) => DataType::Int8,
            Self::Int16(_) => DataType::Int16,
            Self::Int32(_) => DataType::Int32,
            Self::Int64(_) => DataType::Int64,
            Self::Fp16(_) => DataType::Fp16,
            Self::Bf16(_) => DataType::Bf16,
            Self::Fp32(_) => DataType::Fp32,
            Self::Fp64(_) => DataType::Fp64,
            Self::Bytes(_) => DataType::Bytes,
        }
    }

    /// How many elements there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        each_slice!(self, slice => slice.len())
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of the elements; `None` when there are fewer.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Option<Self> {
        match self {
            Self::Bool(slice) => Some(Self::Bool(slice.get(range)?)),
            Self::Uint8(slice) => Some(Self::Uint8(slice.get(range)?)),
            Self::Uint16(slice) => Some(Self::Uint16(slice.get(range)?)),
            Self::Uint32(slice) => Some(Self::Uint32(slice.get(range)?)),
            Self::Uint64(slice) => Some(Self::Uint64(slice.get(range)?)),
            Self::Int8(slice) => Some(Self::Int8(slice.get(range)?)),
            Self::Int16(slice) => Some(Self::Int16(slice.get(range)?)),
            Self::Int32(slice) => Some(Self::Int32(slice.get(range)?)),
            Self::Int64(slice) => Some(Self::Int64(slice.get(range)?)),
            Self::Fp16(slice) => Some(Self::Fp16(slice.get(range)?)),
            Self::Bf16(slice) => Some(Self::Bf16(slice.get(range)?)),
            Self::Fp32(slice) => Some(Self::Fp32(slice.get(range)?)),
            Self::Fp64(slice) => Some(Self::Fp64(slice.get(range)?)),
            Self::Bytes(slice) => Some(Self::Bytes(slice.get(range)?)),
        }
    }

    /// The elements' memory, little-endian as the protocol's binary tensors are: ONNX Runtime knows no
    /// big-endian machine. `None` for strings, which lie in many places.
    #[must_use]
    pub fn bytes(&self) -> Option<&'a [u8]> {
        Some(match *self {
            Self::Bool(slice) => bytemuck::cast_slice(slice),
            Self::Uint8(slice) => bytemuck::cast_slice(slice),
            Self::Uint16(slice) => bytemuck::cast_slice(slice),
            Self::Uint32(slice) => bytemuck::cast_slice(slice),
            Self::Uint64(slice) => bytemuck::cast_slice(slice),
            Self::Int8(slice) => bytemuck::cast_slice(slice),
            Self::Int16(slice) => bytemuck::cast_slice(slice),
            Self::Int32(slice) => bytemuck::cast_slice(slice),
            Self::Int64(slice) => bytemuck::cast_slice(slice),
            Self::Fp16(slice) => bytemuck::cast_slice(slice),
            Self::Bf16(slice) => bytemuck::cast_slice(slice),
            Self::Fp32(slice) => bytemuck::cast_slice(slice),
            Self::Fp64(slice) => bytemuck::cast_slice(slice),
            Self::Bytes(_) => return None,
        })
    }

    /// A copy.
    #[must_use]
    pub fn to_elements(&self) -> Elements {
        match self {
            Self::Bool(slice) => Elements::Bool(slice.to_vec()),
            Self::Uint8(slice) => Elements::Uint8(slice.to_vec()),
            Self::Uint16(slice) => Elements::Uint16(slice.to_vec()),
            Self::Uint32(slice) => Elements::Uint32(slice.to_vec()),
            Self::Uint64(slice) => Elements::Uint64(slice.to_vec()),
            Self::Int8(slice) => Elements::Int8(slice.to_vec()),
            Self::Int16(slice) => Elements::Int16(slice.to_vec()),
            Self::Int32(slice) => Elements::Int32(slice.to_vec()),
            Self::Int64(slice) => Elements::Int64(slice.to_vec()),
            Self::Fp16(slice) => Elements::Fp16(slice.to_vec()),
            Self::Bf16(slice) => Elements::Bf16(slice.to_vec()),
            Self::Fp32(slice) => Elements::Fp32(slice.to_vec()),
            Self::Fp64(slice) => Elements::Fp64(slice.to_vec()),
            Self::Bytes(slice) => Elements::Bytes(slice.to_vec()),
        }
    }
}

impl Tensor {
    /// A tensor of zeros, of `false` or of empty strings: what warm-up runs with.
    #[must_use]
    pub fn zeros(datatype: DataType, shape: Vec<i64>) -> Self {
        let count = element_count(&shape).unwrap_or(0);
        let mut elements = Elements::with_capacity(datatype, count);
        each_buffer!(&mut elements, buffer => buffer.resize(count, Default::default()));
        Self { shape, elements }
    }

    /// Hands the buffer to ONNX Runtime; numbers are not copied.
    pub fn into_ort(self) -> ort::Result<SessionInputValue<'static>> {
        let shape = self.shape;
        match self.elements {
            Elements::Bytes(strings) => {
                Ok(OrtTensor::from_string_array((shape, strings.as_slice()))?.into())
            }
            Elements::Bool(buffer) => numbers(shape, buffer),
            Elements::Uint8(buffer) => numbers(shape, buffer),
            Elements::Uint16(buffer) => numbers(shape, buffer),
            Elements::Uint32(buffer) => numbers(shape, buffer),
            Elements::Uint64(buffer) => numbers(shape, buffer),
            Elements::Int8(buffer) => numbers(shape, buffer),
            Elements::Int16(buffer) => numbers(shape, buffer),
            Elements::Int32(buffer) => numbers(shape, buffer),
            Elements::Int64(buffer) => numbers(shape, buffer),
            Elements::Fp16(buffer) => numbers(shape, buffer),
            Elements::Bf16(buffer) => numbers(shape, buffer),
            Elements::Fp32(buffer) => numbers(shape, buffer),
            Elements::Fp64(buffer) => numbers(shape, buffer),
        }
    }
}

fn numbers<T>(shape: Vec<i64>, buffer: Vec<T>) -> ort::Result<SessionInputValue<'static>>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    Ok(OrtTensor::from_array((shape, buffer))?.into())
}

/// The product of the dimensions; `None` when one is negative or the product overflows.
#[must_use]
pub fn element_count(shape: &[i64]) -> Option<usize> {
    // Zero first: [2^40, 2^40, 0] holds nothing and overflows nothing.
    if shape.iter().any(|dim| *dim < 0) {
        return None;
    }
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1_usize, |product, dim| {
        product.checked_mul(usize::try_from(*dim).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shapes_product_is_counted_without_overflow() {
        assert_eq!(element_count(&[]), Some(1));
        assert_eq!(element_count(&[2, 3]), Some(6));
        assert_eq!(element_count(&[i64::MAX, i64::MAX, 0]), Some(0));
        assert_eq!(element_count(&[i64::MAX, 3]), None);
        assert_eq!(element_count(&[2, -1]), None);
    }

    #[test]
    fn a_view_shows_the_elements_of_every_datatype_and_some_of_them() {
        for datatype in DataType::ALL {
            let elements = Tensor::zeros(datatype, vec![6]).elements;
            let view = elements.view();
            assert_eq!((view.datatype(), view.len()), (datatype, 6));
            assert_eq!(view.to_elements(), elements);
            assert_eq!(view.slice(2..5).map(|some| some.len()), Some(3));
            assert!(view.slice(5..7).is_none(), "{datatype}");
            assert_eq!(view.bytes().is_none(), datatype == DataType::Bytes);
        }
        assert_eq!(View::Int16(&[1, -2]).bytes(), Some(&[1, 0, 254, 255][..]));
        assert_eq!(View::Bool(&[true, false]).bytes(), Some(&[1, 0][..]));
    }

    #[test]
    fn zeros_fill_their_shape_in_every_datatype() {
        for datatype in DataType::ALL {
            assert_eq!(
                Tensor::zeros(datatype, vec![2, 3]).elements.len(),
                6,
                "{datatype}"
            );
            assert!(Tensor::zeros(datatype, vec![0, 3]).elements.is_empty());
        }
    }
}
