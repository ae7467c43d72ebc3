//! From a model's output to one vector for each item.

use std::ops::Range;

use ortolan_model::Pooling;

/// How the output's vectors become one, known from the graph or from a run's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// `None`: `Mean` where there is an axis of tokens.
    pub pooling: Option<Pooling>,
    /// Scale to length 1.
    pub normalize: bool,
}

/// One vector for each item of a run. `shape` is [items, width], or [items, tokens, width] with the place of each
/// item's tokens in `spans`; no spans: all are tokens. An error is a sentence on the model.
pub fn vectors(
    values: &[f32],
    shape: &[i64],
    spans: &[Range<usize>],
    recipe: Recipe,
) -> Result<Vec<Vec<f32>>, String> {
    let dims: Vec<usize> = shape.iter().map(|dim| *dim as usize).collect();
    let mut vectors: Vec<Vec<f32>> = match dims[..] {
        [items, width] if items * width == values.len() && recipe.pooling.is_none() => {
            rows(values, items, width).map(<[f32]>::to_vec).collect()
        }
        [items, tokens, width] if items * tokens * width == values.len() => {
            let pooling = recipe.pooling.unwrap_or(Pooling::Mean);
            let texts = rows(values, items, tokens * width).enumerate();
            texts
                .map(|(item, text)| {
                    let all = 0..tokens;
                    let span = spans.get(item).unwrap_or(&all);
                    let span = span.start.min(tokens)..span.end.min(tokens);
                    pool(&text[span.start * width..span.end * width], width, pooling)
                })
                .collect()
        }
        _ => {
            return Err(format!(
                "the model's output has the shape {}, and an embedding needs [items, width] or, to pool, [items, tokens, width]",
                crate::signature::show_shape(shape)
            ));
        }
    };
    for vector in &mut vectors {
        if recipe.normalize {
            normalize(vector);
        }
        if vector.iter().any(|value| value.is_nan()) {
            return Err("the model's output is not numbers (NaN)".to_owned());
        }
    }
    Ok(vectors)
}

fn rows(values: &[f32], count: usize, width: usize) -> impl Iterator<Item = &[f32]> {
    (0..count).map(move |row| &values[row * width..(row + 1) * width])
}

/// One vector out of those of the tokens, of which none is padding.
fn pool(tokens: &[f32], width: usize, pooling: Pooling) -> Vec<f32> {
    if tokens.is_empty() || width == 0 {
        return vec![0.0; width];
    }
    match pooling {
        Pooling::Cls => tokens[..width].to_vec(),
        Pooling::Last => tokens[tokens.len() - width..].to_vec(),
        Pooling::Mean => {
            let mut sum = vec![0.0_f32; width];
            for token in tokens.chunks_exact(width) {
                for (sum, value) in sum.iter_mut().zip(token) {
                    *sum += value;
                }
            }
            let count = (tokens.len() / width) as f32;
            sum.iter_mut().for_each(|sum| *sum /= count);
            sum
        }
    }
}

/// To length 1; a vector of zeros stays one.
fn normalize(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
    // As sentence-transformers bounds it.
    let length = square.sqrt().max(1e-12) as f32;
    vector.iter_mut().for_each(|value| *value /= length);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Recipe = Recipe {
        pooling: None,
        normalize: false,
    };

    #[test]
    fn padding_counts_in_no_pooling() {
        // Two texts of three places, two wide: the first has two tokens, the second, padded before, one.
        let values = [1., 2., 3., 6., 99., 99., 88., 88., 77., 77., 5., 4.];
        let pooled = |pooling| {
            let recipe = Recipe { pooling, ..PLAIN };
            vectors(&values, &[2, 3, 2], &[0..2, 2..3], recipe).unwrap()
        };
        assert_eq!(pooled(None), [[2., 4.], [5., 4.]]);
        assert_eq!(pooled(Some(Pooling::Mean)), pooled(None));
        assert_eq!(pooled(Some(Pooling::Cls)), [[1., 2.], [5., 4.]]);
        assert_eq!(pooled(Some(Pooling::Last)), [[3., 6.], [5., 4.]]);
    }

    #[test]
    fn a_vector_is_scaled_to_length_one_and_zeros_stay_zeros() {
        let recipe = Recipe {
            normalize: true,
            ..PLAIN
        };
        let scaled = vectors(&[3., 4., 0., 0.], &[2, 2], &[], recipe).unwrap();
        assert_eq!(scaled, [[0.6, 0.8], [0., 0.]]);
    }

    #[test]
    fn an_output_that_is_no_embedding_is_a_sentence() {
        for (values, shape, part) in [
            (&[1., 2.][..], &[2][..], "has the shape [2]"),
            (&[1.], &[1, 2], "has the shape [1,2]"),
            (&[f32::NAN], &[1, 1], "NaN"),
        ] {
            let sentence = vectors(values, shape, &[], PLAIN).unwrap_err();
            assert!(sentence.contains(part), "{sentence}");
        }
        let pooled = Recipe {
            pooling: Some(Pooling::Cls),
            ..PLAIN
        };
        assert!(vectors(&[1.], &[1, 1], &[], pooled).is_err());
    }
}
