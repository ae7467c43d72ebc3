//! One output of a run: a value that ONNX Runtime gave, or some rows of one that several requests share.
//!
//! Numbers stay where ONNX Runtime wrote them until a protocol writes them out; strings are read out once.

use std::sync::Arc;

use half::{bf16, f16};
use ort::value::DynValue;

use crate::{
    dtype::DataType,
    tensor::{Elements, Tensor, View, element_count},
};

/// An output that could not be read back from ONNX Runtime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the output: {0}")]
pub struct Unreadable(String);

impl From<ort::Error> for Unreadable {
    fn from(error: ort::Error) -> Self {
        Self(error.message().to_owned())
    }
}

/// A tensor that a run gave. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Output {
    source: Source,
    datatype: DataType,
    shape: Vec<i64>,
    /// Where its elements begin among the source's, and how many they are.
    first: usize,
    count: usize,
}

#[derive(Clone, Debug)]
enum Source {
    /// Numbers, in ONNX Runtime's memory.
    Value(Arc<DynValue>),
    /// Strings, or numbers that were copied to outlive the run's memory.
    Owned(Arc<Elements>),
}

impl From<Tensor> for Output {
    fn from(tensor: Tensor) -> Self {
        Self {
            datatype: tensor.elements.view().datatype(),
            count: tensor.elements.len(),
            first: 0,
            shape: tensor.shape,
            source: Source::Owned(Arc::new(tensor.elements)),
        }
    }
}

impl Output {
    /// The whole of a value.
    pub fn of(value: DynValue) -> Result<Self, Unreadable> {
        let Some(datatype) = value.dtype().tensor_type().and_then(DataType::from_onnx) else {
            return Err(Unreadable(
                "it is no tensor of a datatype that the protocol has".to_owned(),
            ));
        };
        let shape = value.dtype().tensor_shape();
        let shape = shape.map(|shape| shape.to_vec()).unwrap_or_default();
        let source = if datatype == DataType::Bytes {
            Source::Owned(Arc::new(Elements::Bytes(value.try_extract_strings()?.1)))
        } else {
            Source::Value(Arc::new(value))
        };
        let mut output = Self {
            source,
            datatype,
            shape,
            first: 0,
            count: 0,
        };
        output.count = output.source.view(datatype)?.len();
        Ok(output)
    }

    /// Its datatype.
    #[must_use]
    pub const fn datatype(&self) -> DataType {
        self.datatype
    }

    /// Its dimensions, all known.
    #[must_use]
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// Its rows in parts of `rows` each; they share its memory. `None` unless it has just so many rows.
    #[must_use]
    pub fn split(&self, rows: &[usize]) -> Option<Vec<Self>> {
        let total: usize = rows.iter().sum();
        let (has, rest) = self.shape.split_first()?;
        if usize::try_from(*has) != Ok(total) {
            return None;
        }
        let row = element_count(rest)?;
        let mut first = self.first;
        let part = |rows: &usize| {
            let mut part = self.clone();
            part.shape[0] = i64::try_from(*rows).ok()?;
            (part.first, part.count) = (first, rows * row);
            first += part.count;
            Some(part)
        };
        rows.iter().map(part).collect()
    }

    /// A copy that holds nothing but its own elements.
    pub fn to_owned(&self) -> Result<Self, Unreadable> {
        Ok(Self {
            source: Source::Owned(Arc::new(self.elements()?.to_elements())),
            first: 0,
            ..self.clone()
        })
    }

    /// Its elements, row by row.
    pub fn elements(&self) -> Result<View<'_>, Unreadable> {
        let all = self.source.view(self.datatype)?;
        all.slice(self.first..self.first + self.count)
            .ok_or_else(|| Unreadable("it has fewer elements than its shape says".to_owned()))
    }
}

impl Source {
    fn view(&self, datatype: DataType) -> Result<View<'_>, Unreadable> {
        let value = match self {
            Self::Owned(elements) => return Ok(elements.view()),
            Self::Value(value) => value,
        };
        Ok(match datatype {
            DataType::Bool => View::Bool(value.try_extract_tensor::<bool>()?.1),
            DataType::Uint8 => View::Uint8(value.try_extract_tensor::<u8>()?.1),
            DataType::Uint16 => View::Uint16(value.try_extract_tensor::<u16>()?.1),
            DataType::Uint32 => View::Uint32(value.try_extract_tensor::<u32>()?.1),
            DataType::Uint64 => View::Uint64(value.try_extract_tensor::<u64>()?.1),
            DataType::Int8 => View::Int8(value.try_extract_tensor::<i8>()?.1),
            DataType::Int16 => View::Int16(value.try_extract_tensor::<i16>()?.1),
            DataType::Int32 => View::Int32(value.try_extract_tensor::<i32>()?.1),
            DataType::Int64 => View::Int64(value.try_extract_tensor::<i64>()?.1),
            DataType::Fp16 => View::Fp16(value.try_extract_tensor::<f16>()?.1),
            DataType::Bf16 => View::Bf16(value.try_extract_tensor::<bf16>()?.1),
            DataType::Fp32 => View::Fp32(value.try_extract_tensor::<f32>()?.1),
            DataType::Fp64 => View::Fp64(value.try_extract_tensor::<f64>()?.1),
            DataType::Bytes => return Err(Unreadable("strings are read out at once".to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(shape: &[i64], elements: Vec<i32>) -> Output {
        Output::from(Tensor {
            shape: shape.to_vec(),
            elements: Elements::Int32(elements),
        })
    }

    #[test]
    fn parts_of_an_output_are_its_rows_in_their_order() {
        let whole = output(&[4, 2], (0..8).collect());
        let parts = whole.split(&[1, 0, 3]).unwrap();
        let seen: Vec<_> = parts
            .iter()
            .map(|part| (part.shape().to_vec(), part.elements().unwrap()))
            .collect();
        assert_eq!(
            seen,
            [
                (vec![1, 2], View::Int32(&[0, 1])),
                (vec![0, 2], View::Int32(&[])),
                (vec![3, 2], View::Int32(&[2, 3, 4, 5, 6, 7])),
            ]
        );
        let again = parts[2].split(&[2, 1]).unwrap();
        assert_eq!(again[1].elements().unwrap(), View::Int32(&[6, 7]));
        let owned = again[1].to_owned().unwrap();
        assert_eq!(owned.elements().unwrap(), View::Int32(&[6, 7]));
        assert_eq!(owned.shape(), [1, 2]);
    }

    #[test]
    fn an_output_with_another_number_of_rows_is_not_split() {
        assert!(output(&[4], vec![0; 4]).split(&[1, 2]).is_none());
        assert!(output(&[4], vec![0; 4]).split(&[5]).is_none());
        assert!(output(&[], vec![0]).split(&[1]).is_none());
    }
}
