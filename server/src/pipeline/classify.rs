//! From scores to the best classes.

use ortolan_model::{Activation, Classification};
use serde::Serialize;

use crate::classes;

/// One class of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class<'a> {
    /// From the labels file; left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<&'a str>,
    /// The place among the scores.
    pub index: usize,
    /// The score, after softmax or sigmoid where the pipeline asks for it.
    pub probability: f32,
}

/// The `top_k` best of one row of scores, best first; equal scores in their own order. None below the
/// pipeline's threshold.
pub fn rank<'a>(
    scores: &[f32],
    wanted: &'a Classification,
    top_k: usize,
) -> Result<Vec<Class<'a>>, &'static str> {
    if scores.iter().any(|score| score.is_nan()) {
        return Err("the model's scores are not numbers (NaN)");
    }
    let scores = match wanted.activation {
        Activation::None => scores.to_vec(),
        Activation::Softmax => softmaxed(scores),
        Activation::Sigmoid => scores.iter().map(|score| sigmoid(*score)).collect(),
    };
    let least = wanted.threshold.unwrap_or(f32::NEG_INFINITY);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.retain(|index| scores[*index] >= least);
    classes::keep_best(&mut order, top_k, |a, b| {
        scores[*b].total_cmp(&scores[*a]).then(a.cmp(b))
    });
    let class = |index: usize| Class {
        label: wanted.labels.get(index).map(String::as_str),
        index,
        probability: scores[index],
    };
    Ok(order.into_iter().map(class).collect())
}

fn sigmoid(score: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(score)).exp())) as f32
}

/// In f64, from the largest score down, so that no exponent overflows.
fn softmaxed(scores: &[f32]) -> Vec<f32> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = scores
        .iter()
        .map(|score| {
            if *score == largest {
                1.0
            } else {
                f64::from(score - largest).exp()
            }
        })
        .collect();
    let sum: f64 = powers.iter().sum();
    powers
        .into_iter()
        .map(|power| (power / sum) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(activation: Activation) -> Classification {
        Classification {
            tensor: None,
            labels: ["cat", "daisy", "dog"].map(str::to_owned).to_vec(),
            activation,
            top_k: 5,
            threshold: None,
        }
    }

    #[test]
    fn the_best_come_first_with_their_labels() {
        let wanted = wanted(Activation::None);
        let classes = rank(&[0.1, 2.0, 0.1], &wanted, 2).unwrap();
        assert_eq!(
            classes[0],
            Class {
                label: Some("daisy"),
                index: 1,
                probability: 2.0
            }
        );
        assert_eq!(classes[1].label, Some("cat"));
        assert_eq!(rank(&[1.0], &wanted, 0), Ok(vec![]));
    }

    #[test]
    fn what_is_below_the_threshold_is_left_out() {
        let wanted = Classification {
            threshold: Some(0.5),
            ..wanted(Activation::Sigmoid)
        };
        let classes = rank(&[-1.0, 0.0, 3.0], &wanted, 5).unwrap();
        let found: Vec<_> = classes.iter().map(|c| (c.index, c.probability)).collect();
        assert_eq!(found, [(2, 0.952_574_13), (1, 0.5)]);
        assert_eq!(rank(&[-1.0, -900.0], &wanted, 5), Ok(vec![]));
    }

    #[test]
    fn softmax_sums_to_one_whatever_the_scale() {
        let wanted = wanted(Activation::Softmax);
        for scores in [
            vec![1.0, 2.0, 3.0],
            vec![1e30, -1e30],
            vec![-5000.0; 4],
            vec![f32::INFINITY, 0.0],
        ] {
            let sum: f32 = rank(&scores, &wanted, 9)
                .unwrap()
                .iter()
                .map(|class| class.probability)
                .sum();
            assert!((sum - 1.0).abs() < 1e-6, "{scores:?} gave {sum}");
        }
    }

    #[test]
    fn scores_that_are_no_numbers_are_not_ranked() {
        assert!(rank(&[f32::NAN, 1.0], &wanted(Activation::None), 1).is_err());
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_sorting_all(
            scores in proptest::collection::vec(-3_i8..3, 0..40), top_k in 0_usize..45,
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let mut sorted: Vec<usize> = (0..scores.len()).collect();
            sorted.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            sorted.truncate(top_k);
            let wanted = wanted(Activation::None);
            let ranked = rank(&scores, &wanted, top_k).unwrap();
            prop_assert_eq!(ranked.iter().map(|class| class.index).collect::<Vec<_>>(), sorted);
        }
    }
}
