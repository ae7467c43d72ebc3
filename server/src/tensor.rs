//! A tensor as requests bring it: a typed buffer with its shape, handed to ONNX Runtime without a copy.

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
