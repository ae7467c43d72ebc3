//! From scores to the best classes.

use serde::Serialize;

/// One class of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class<'a> {
    /// From the labels file; left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<&'a str>,
    /// The place among the scores.
    pub index: usize,
    /// The score, after softmax where the pipeline asks for it.
    pub probability: f32,
}

/// The `top_k` best of one row of scores, best first; equal scores in their own order.
pub fn rank<'a>(
    scores: &[f32],
    labels: &'a [String],
    softmax: bool,
    top_k: usize,
) -> Result<Vec<Class<'a>>, &'static str> {
    if scores.iter().any(|score| score.is_nan()) {
        return Err("the model's scores are not numbers (NaN)");
    }
    let scores = if softmax {
        softmaxed(scores)
    } else {
        scores.to_vec()
    };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order.truncate(top_k);
    let class = |index: usize| Class {
        label: labels.get(index).map(String::as_str),
        index,
        probability: scores[index],
    };
    Ok(order.into_iter().map(class).collect())
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
    use super::*;

    #[test]
    fn the_best_come_first_with_their_labels() {
        let labels = ["cat", "daisy", "dog"].map(str::to_owned);
        let classes = rank(&[0.1, 2.0, 0.1], &labels, false, 2).unwrap();
        assert_eq!(
            classes[0],
            Class {
                label: Some("daisy"),
                index: 1,
                probability: 2.0
            }
        );
        assert_eq!(classes[1].label, Some("cat"));
    }

    #[test]
    fn softmax_sums_to_one_whatever_the_scale() {
        for scores in [
            vec![1.0, 2.0, 3.0],
            vec![1e30, -1e30],
            vec![-5000.0; 4],
            vec![f32::INFINITY, 0.0],
        ] {
            let sum: f32 = rank(&scores, &[], true, 9)
                .unwrap()
                .iter()
                .map(|class| class.probability)
                .sum();
            assert!((sum - 1.0).abs() < 1e-6, "{scores:?} gave {sum}");
        }
    }

    #[test]
    fn scores_that_are_no_numbers_are_not_ranked() {
        assert!(rank(&[f32::NAN, 1.0], &[], true, 1).is_err());
    }
}
