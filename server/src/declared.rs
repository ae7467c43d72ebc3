//! Do the inputs and outputs that a model's file declares stand in its graph?
//!
//! Pure. A file that declares another name, datatype or shape than the graph has was written for
//! another model: its batch size and its clients are then wrong as well, so that it is refused.

use ortolan_model::settings::{Declared, Settings};

use crate::signature::{Signature, TensorSpec, show_names, show_shape};

/// Compares; an error is a sentence that says what the file has and what the graph has.
pub fn check(own: &Settings, signature: &Signature) -> Result<(), String> {
    for (what, declared, specs) in [
        ("input", &own.inputs, &signature.inputs),
        ("output", &own.outputs, &signature.outputs),
    ] {
        for tensor in declared {
            matches(what, tensor, specs)?;
        }
    }
    // Nothing declared is nothing said; one input alone is a model with one input.
    let is_missing = |spec: &&TensorSpec| !own.inputs.iter().any(|input| input.name == spec.name);
    match signature.required().find(is_missing) {
        Some(missing) if !own.inputs.is_empty() => Err(format!(
            "config.pbtxt declares the inputs {}, and the model needs {:?} as well",
            show_names(own.inputs.iter().map(|input| input.name.as_str())),
            missing.name
        )),
        _ => match own.batching.max {
            Some(max) if max > 1 && !signature.is_batchable() => Err(format!(
                "max_batch_size is {max}, and the model has no free first dimension on all inputs and \
                 outputs; write max_batch_size: 0 and the whole shapes, or export the model with a \
                 free batch dimension"
            )),
            _ => Ok(()),
        },
    }
}

/// The shapes of the first warm-up sample, by the place of the input; an error is a sentence.
pub fn warm_up_shapes(
    own: &Settings,
    signature: &Signature,
) -> Result<Vec<(usize, Vec<i64>)>, String> {
    let Some(sample) = own.warm_up.first() else {
        return Ok(Vec::new());
    };
    let shapes = sample.shapes.iter().map(|(name, shape)| {
        let index = signature.input_index(name).ok_or_else(|| {
            format!(
                "model_warmup names the input {name:?}, and the model has {}",
                show_names(signature.inputs.iter().map(|spec| spec.name.as_str()))
            )
        })?;
        signature.inputs[index]
            .accepts(shape)
            .map_err(|sentence| format!("model_warmup: {sentence}"))?;
        Ok((index, shape.clone()))
    });
    shapes.collect()
}

fn matches(what: &str, declared: &Declared, specs: &[TensorSpec]) -> Result<(), String> {
    let name = &declared.name;
    let Some(spec) = specs.iter().find(|spec| spec.name == *name) else {
        return Err(format!(
            "config.pbtxt declares the {what} {name:?}, and the model has {}",
            show_names(specs.iter().map(|spec| spec.name.as_str()))
        ));
    };
    if let Some(datatype) = declared.datatype
        && datatype != spec.datatype.as_str()
    {
        return Err(format!(
            "config.pbtxt declares the {what} {name:?} as {datatype}, and the model has {}",
            spec.datatype
        ));
    }
    let Some(shape) = &declared.shape else {
        return Ok(());
    };
    // -1 on one side alone is a size that the other side does not know.
    let fits = shape.len() == spec.shape.len()
        && shape
            .iter()
            .zip(&spec.shape)
            .all(|(file, graph)| *file == -1 || *graph == -1 || file == graph);
    if fits {
        return Ok(());
    }
    Err(format!(
        "config.pbtxt declares the {what} {name:?} with the shape {}, and the model has {}{}",
        show_shape(shape),
        show_shape(&spec.shape),
        if shape.len() + 1 == spec.shape.len() || shape.len() == spec.shape.len() + 1 {
            "; dims are without the batch dimension where max_batch_size is above 0, and with it where it is 0"
        } else {
            ""
        }
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ortolan_model::settings::WarmUp;

    use super::*;
    use crate::dtype::DataType;

    fn signature(batch: i64) -> Signature {
        let spec = |name: &str, datatype, shape: &[i64], optional| TensorSpec {
            name: name.to_owned(),
            datatype,
            shape: shape.to_vec(),
            optional,
        };
        Signature {
            inputs: vec![
                spec("x", DataType::Fp32, &[batch, 3, -1], false),
                spec("scale", DataType::Fp32, &[1], true),
            ],
            outputs: vec![spec("y", DataType::Bytes, &[batch, 2], false)],
            opset: 17,
        }
    }

    fn declared(name: &str, datatype: Option<&'static str>, shape: Option<&[i64]>) -> Declared {
        Declared {
            name: name.to_owned(),
            datatype,
            shape: shape.map(<[i64]>::to_vec),
        }
    }

    #[test]
    fn what_stands_in_the_graph_passes_whichever_side_leaves_a_size_open() {
        let mut own = Settings::default();
        assert_eq!(check(&own, &signature(-1)), Ok(()));
        own.batching.max = Some(8);
        own.inputs = vec![declared("x", Some("FP32"), Some(&[-1, 3, 224]))];
        own.outputs = vec![declared("y", Some("BYTES"), Some(&[-1, -1]))];
        assert_eq!(check(&own, &signature(-1)), Ok(()));
        own.inputs = vec![declared("x", None, None)];
        assert_eq!(check(&own, &signature(-1)), Ok(()));
    }

    #[test]
    fn a_warm_up_sample_must_fit_the_model() {
        let warm_up = |name: &str, shape: &[i64]| {
            let own = Settings {
                warm_up: vec![WarmUp {
                    name: String::new(),
                    shapes: BTreeMap::from([(name.to_owned(), shape.to_vec())]),
                }],
                ..Settings::default()
            };
            warm_up_shapes(&own, &signature(-1))
        };
        assert_eq!(warm_up("x", &[2, 3, 9]), Ok(vec![(0, vec![2, 3, 9])]));
        assert!(
            warm_up("x", &[2, 4, 9])
                .unwrap_err()
                .contains("expected [-1,3,-1]")
        );
        assert!(
            warm_up("z", &[1])
                .unwrap_err()
                .contains("the model has \"x\"")
        );
    }

    #[test]
    fn what_does_not_is_refused_with_both_sides() {
        let x = |shape: &[i64]| declared("x", Some("FP32"), Some(shape));
        let cases = [
            (
                vec![declared("z", None, None)],
                "the input \"z\", and the model has \"x\", \"scale\"",
            ),
            (
                vec![declared("x", Some("FP16"), None)],
                "\"x\" as FP16, and the model has FP32",
            ),
            (
                vec![x(&[-1, 4, 224])],
                "the shape [-1,4,224], and the model has [-1,3,-1]",
            ),
            (
                vec![x(&[3, 224])],
                "without the batch dimension where max_batch_size is above 0",
            ),
            (
                vec![declared("scale", None, None)],
                "the model needs \"x\" as well",
            ),
        ];
        for (inputs, words) in cases {
            let own = Settings {
                inputs,
                ..Settings::default()
            };
            let sentence = check(&own, &signature(-1)).unwrap_err();
            assert!(sentence.contains(words), "{sentence}");
        }
        let mut own = Settings::default();
        own.batching.max = Some(8);
        let sentence = check(&own, &signature(1)).unwrap_err();
        assert!(sentence.contains("max_batch_size: 0"), "{sentence}");
    }
}
