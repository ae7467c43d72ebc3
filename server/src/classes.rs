//! Triton's classification extension: of each row of scores the highest, as strings `VALUE:INDEX:LABEL`.
//!
//! Inputs: scores, row by row; how many per row; labels, or none. Outputs: strings, best first, ties by
//! index, NaN last. Values are written as C++'s `std::to_string` does, because that is what clients of
//! this extension read: six decimals for floats.

use std::{cmp::Ordering, fmt::Write};

use half::{bf16, f16};

/// What can be ranked.
pub trait Score: Copy {
    /// `Less` when `self` comes first.
    fn rank(self, other: Self) -> Ordering;
    /// As the extension writes it.
    fn show(self, out: &mut String);
}

macro_rules! whole {
    ($($kind:ty),+) => {$(
        impl Score for $kind {
            fn rank(self, other: Self) -> Ordering {
                other.cmp(&self)
            }

            fn show(self, out: &mut String) {
                let _ = write!(out, "{self}");
            }
        }
    )+};
}
whole!(u8, u16, u32, u64, i8, i16, i32, i64);

macro_rules! float {
    ($($kind:ty),+) => {$(
        impl Score for $kind {
            fn rank(self, other: Self) -> Ordering {
                // Every NaN, whatever its sign, comes after every number.
                let numbers = other.partial_cmp(&self);
                numbers.unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
            }

            fn show(self, out: &mut String) {
                let value = f64::from(self);
                let _ = if value.is_nan() {
                    write!(out, "nan")
                } else {
                    write!(out, "{value:.6}")
                };
            }
        }
    )+};
}
float!(f16, bf16, f32, f64);

/// The best `count` of each row of `row` elements, fewer where a row is shorter.
#[must_use]
pub fn rank<T: Score>(scores: &[T], row: usize, count: usize, labels: &[String]) -> Vec<String> {
    let count = count.min(row);
    if count == 0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = Vec::with_capacity(row);
    let mut classes = Vec::with_capacity(scores.len() / row * count);
    for row in scores.chunks_exact(row) {
        order.clear();
        order.extend(0..row.len());
        keep_best(&mut order, count, |a, b| {
            row[*a].rank(row[*b]).then(a.cmp(b))
        });
        classes.extend(order.iter().map(|index| show(row[*index], *index, labels)));
    }
    classes
}

/// Leaves the first `count` places of `order`, in their order.
pub fn keep_best(order: &mut Vec<usize>, count: usize, first: impl Fn(&usize, &usize) -> Ordering) {
    if count < order.len() {
        // The best are brought to the front first: sorting a thousand scores takes ten times longer.
        order.select_nth_unstable_by(count, &first);
        order.truncate(count);
    }
    order.sort_unstable_by(first);
}

fn show<T: Score>(score: T, index: usize, labels: &[String]) -> String {
    let mut text = String::with_capacity(32);
    score.show(&mut text);
    let _ = write!(text, ":{index}");
    if let Some(label) = labels.get(index) {
        text.push(':');
        text.push_str(label);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_row_is_ranked_by_itself() {
        let labels = ["cat", "dog"].map(str::to_owned);
        let scores = [0.25_f32, 0.5, 0.25, 1e-7, -2.0, 3.0];
        assert_eq!(
            rank(&scores, 3, 2, &labels),
            [
                "0.500000:1:dog",
                "0.250000:0:cat",
                "3.000000:2",
                "0.000000:0:cat"
            ]
        );
        assert_eq!(
            rank(&[7_u8, 200], 2, 9, &[]),
            ["200:1", "7:0"],
            "more than there are"
        );
        assert_eq!(
            rank(&[i64::MIN, i64::MAX], 2, 1, &[]),
            ["9223372036854775807:1"]
        );
        assert!(rank::<f32>(&[], 0, 5, &[]).is_empty());
        assert!(rank::<f32>(&[], 4, 5, &[]).is_empty());
    }

    #[test]
    fn nan_is_last_and_infinity_is_written_as_c_writes_it() {
        let scores = [f32::NAN, f32::NEG_INFINITY, -f32::NAN, f32::INFINITY];
        assert_eq!(
            rank(&scores, 4, 4, &[]),
            ["inf:3", "-inf:1", "nan:0", "nan:2"]
        );
        assert_eq!(rank(&[f16::from_f32(0.5)], 1, 1, &[]), ["0.500000:0"]);
    }

    proptest! {
        #[test]
        fn the_best_of_a_row_are_those_of_a_full_sort(
            scores in proptest::collection::vec(-5..5_i32, 1..40),
            count in 1..50_usize,
        ) {
            let mut sorted: Vec<(i32, usize)> = scores.iter().copied().zip(0..).collect();
            sorted.sort_by_key(|(score, index)| (-score, *index));
            let expected: Vec<String> =
                sorted.iter().take(count).map(|(score, index)| format!("{score}:{index}")).collect();
            prop_assert_eq!(rank(&scores, scores.len(), count, &[]), expected);
        }
    }
}
