//! How far two values of one output lie apart. Pure.

use half::{bf16, f16};
use ort::value::DynValue;
use serde::Serialize;

use crate::dtype::DataType;

/// An output's elements, read out.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// FP16, BF16, FP32, FP64
    Floats(Vec<f64>),
    /// All others that are numbers, BOOL as 0 and 1.
    Whole(Vec<i128>),
    /// BYTES
    Texts(Vec<String>),
}

impl Values {
    /// Of a tensor of one of the protocol's datatypes.
    pub(super) fn of(value: &DynValue) -> ort::Result<Self> {
        macro_rules! whole {
            ($kind:ty) => {
                Self::Whole(
                    value
                        .try_extract_tensor::<$kind>()?
                        .1
                        .iter()
                        .map(|element| i128::from(*element))
                        .collect(),
                )
            };
        }
        macro_rules! floats {
            ($kind:ty) => {
                Self::Floats(
                    value
                        .try_extract_tensor::<$kind>()?
                        .1
                        .iter()
                        .map(|element| f64::from(*element))
                        .collect(),
                )
            };
        }
        let datatype = value.dtype().tensor_type().and_then(DataType::from_onnx);
        Ok(match datatype {
            Some(DataType::Fp16) => floats!(f16),
            Some(DataType::Bf16) => floats!(bf16),
            Some(DataType::Fp32) => floats!(f32),
            Some(DataType::Fp64) => floats!(f64),
            Some(DataType::Bool) => whole!(bool),
            Some(DataType::Uint8) => whole!(u8),
            Some(DataType::Uint16) => whole!(u16),
            Some(DataType::Uint32) => whole!(u32),
            Some(DataType::Uint64) => whole!(u64),
            Some(DataType::Int8) => whole!(i8),
            Some(DataType::Int16) => whole!(i16),
            Some(DataType::Int32) => whole!(i32),
            Some(DataType::Int64) => whole!(i64),
            Some(DataType::Bytes) => Self::Texts(value.try_extract_strings()?.1),
            None => return Err(ort::Error::new("an output is no tensor")),
        })
    }
}

/// How far an output moved, over all inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Difference {
    /// Elements that were compared.
    pub elements: u64,
    /// Elements that are not the same.
    pub different: u64,
    /// The largest difference of two numbers.
    pub largest: f64,
    /// The largest number that there was before.
    pub scale: f64,
    /// Elements that are a number on one side and none on the other, or outputs of another length.
    pub incomparable: u64,
}

impl Difference {
    /// The largest difference in terms of the largest number; 0 when all are 0.
    pub(super) fn relative(&self) -> f64 {
        if self.scale == 0.0 {
            return 0.0;
        }
        self.largest / self.scale
    }

    /// Takes another pair of values into account.
    pub(super) fn add(&mut self, before: &Values, after: &Values) {
        match (before, after) {
            (Values::Floats(a), Values::Floats(b)) if a.len() == b.len() => {
                for (a, b) in a.iter().zip(b) {
                    self.number(*a, *b);
                }
            }
            (Values::Whole(a), Values::Whole(b)) if a.len() == b.len() => {
                for (a, b) in a.iter().zip(b) {
                    self.number(*a as f64, *b as f64);
                    // Two large whole numbers may be one double.
                    self.different += u64::from(a != b && *a as f64 == *b as f64);
                }
            }
            (Values::Texts(a), Values::Texts(b)) if a.len() == b.len() => {
                self.elements += a.len() as u64;
                self.different += a.iter().zip(b).filter(|(a, b)| a != b).count() as u64;
            }
            _ => self.incomparable += 1,
        }
    }

    fn number(&mut self, before: f64, after: f64) {
        self.elements += 1;
        let same = before == after || (before.is_nan() && after.is_nan());
        if before.is_finite() {
            self.scale = self.scale.max(before.abs());
        }
        if same {
            return;
        }
        self.different += 1;
        if before.is_finite() && after.is_finite() {
            self.largest = self.largest.max((before - after).abs());
        } else {
            self.incomparable += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn between(before: Values, after: Values) -> Difference {
        let mut difference = Difference::default();
        difference.add(&before, &after);
        difference
    }

    #[test]
    fn the_largest_difference_is_found_with_its_scale() {
        let difference = between(
            Values::Floats(vec![1.0, -4.0, 0.0]),
            Values::Floats(vec![1.0, -3.5, 0.1]),
        );
        assert_eq!((difference.elements, difference.different), (3, 2));
        assert_eq!((difference.largest, difference.scale), (0.5, 4.0));
        assert_eq!(difference.relative(), 0.125);
        assert_eq!(difference.incomparable, 0);
    }

    #[test]
    fn what_is_no_number_is_the_same_only_as_itself() {
        let nan = f64::NAN;
        let same = between(
            Values::Floats(vec![nan, f64::INFINITY]),
            Values::Floats(vec![nan, f64::INFINITY]),
        );
        assert_eq!((same.different, same.incomparable), (0, 0));
        let other = between(
            Values::Floats(vec![nan, 1.0]),
            Values::Floats(vec![1.0, f64::INFINITY]),
        );
        assert_eq!((other.different, other.incomparable), (2, 2));
        assert_eq!(other.largest, 0.0);
    }

    #[test]
    fn whole_numbers_and_texts_are_compared_exactly() {
        let large = 1_i128 << 60;
        let difference = between(
            Values::Whole(vec![large, 7]),
            Values::Whole(vec![large + 1, 5]),
        );
        assert_eq!((difference.different, difference.largest), (2, 2.0));
        let texts =
            |words: &[&str]| Values::Texts(words.iter().map(|word| (*word).into()).collect());
        assert_eq!(between(texts(&["a", "b"]), texts(&["a", "c"])).different, 1);
        assert_eq!(between(texts(&["a"]), texts(&["a", "c"])).incomparable, 1);
        assert_eq!(between(texts(&[]), Values::Whole(vec![])).incomparable, 1);
    }

    proptest! {
        #[test]
        fn values_do_not_differ_from_themselves(numbers in proptest::collection::vec(any::<f64>(), 0..50)) {
            let difference = between(Values::Floats(numbers.clone()), Values::Floats(numbers));
            prop_assert_eq!((difference.different, difference.incomparable), (0, 0));
            prop_assert_eq!(difference.relative(), 0.0);
        }
    }
}
