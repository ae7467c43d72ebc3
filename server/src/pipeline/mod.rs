//! From a raw body to tensors and from tensors to an answer, as `model.yaml` says.

use ortolan_model::{Input, Output, Pipeline};

use crate::{
    dtype::DataType,
    signature::{Signature, show_shape},
};

pub mod classify;
pub mod image;

/// Whether the pipeline feeds this model and reads it; else a sentence for `InvalidConfig`.
pub fn check(pipeline: &Pipeline, signature: &Signature) -> Result<(), String> {
    let Input::Image(input) = &pipeline.input;
    let required: Vec<_> = signature.required().collect();
    let [spec] = required.as_slice() else {
        return Err(format!(
            "model.yaml: the image pipeline feeds one input, and the model has {}",
            required.len()
        ));
    };
    if spec.datatype != DataType::Fp32 {
        return Err(format!(
            "model.yaml: the image pipeline makes FP32, and the input {:?} is {}",
            spec.name, spec.datatype
        ));
    }
    let shape = image::shape(input);
    spec.accepts(&shape).map_err(|_| {
        format!(
            "model.yaml: the image pipeline makes the shape {}, and the input {:?} has {}; \
             set width, height and layout to match",
            show_shape(&shape),
            spec.name,
            show_shape(&spec.shape)
        )
    })?;
    let Output::Classification { labels, .. } = &pipeline.output;
    let Some(output) = signature.outputs.first() else {
        return Err(
            "model.yaml: classification needs an output, and the model has none".to_owned(),
        );
    };
    if output.datatype != DataType::Fp32 {
        return Err(format!(
            "model.yaml: classification reads FP32 scores, and the output {:?} is {}",
            output.name, output.datatype
        ));
    }
    let classes = output.shape.last().copied().unwrap_or(1);
    if !labels.is_empty() && classes > 0 && classes != labels.len() as i64 {
        return Err(format!(
            "model.yaml: the labels file has {} lines, and the output {:?} has {classes} classes",
            labels.len(),
            output.name
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ortolan_model::{Channels, ImageInput, Layout, Resize};

    use super::*;
    use crate::signature::TensorSpec;

    fn signature(input: (DataType, &[i64]), output: (DataType, &[i64])) -> Signature {
        let spec = |name: &str, (datatype, shape): (DataType, &[i64])| TensorSpec {
            name: name.to_owned(),
            datatype,
            shape: shape.to_vec(),
            optional: false,
        };
        Signature {
            inputs: vec![spec("x", input)],
            outputs: vec![spec("y", output)],
            opset: 17,
        }
    }

    #[test]
    fn a_pipeline_that_does_not_fit_its_model_is_refused_at_load() {
        let pipeline = Pipeline {
            input: Input::Image(ImageInput {
                width: 8,
                height: 4,
                resize: Resize::Crop,
                channels: Channels::Rgb,
                layout: Layout::Nchw,
                mean: vec![0.0; 3],
                std: vec![1.0; 3],
            }),
            output: Output::Classification {
                labels: vec!["a".into(), "b".into()],
                softmax: true,
                top_k: 5,
            },
        };
        use DataType::{Fp32, Uint8};
        assert_eq!(
            check(
                &pipeline,
                &signature((Fp32, &[-1, 3, 4, 8]), (Fp32, &[-1, 2]))
            ),
            Ok(())
        );
        let wrong = [
            (
                signature((Uint8, &[-1, 3, 4, 8]), (Fp32, &[-1, 2])),
                "is UINT8",
            ),
            (
                signature((Fp32, &[-1, 3, 8, 4]), (Fp32, &[-1, 2])),
                "[1,3,4,8]",
            ),
            (
                signature((Fp32, &[-1, 3, 4, 8]), (Fp32, &[-1, 3])),
                "2 lines",
            ),
            (
                signature((Fp32, &[-1, 3, 4, 8]), (Uint8, &[-1, 2])),
                "FP32 scores",
            ),
        ];
        for (signature, part) in wrong {
            let sentence = check(&pipeline, &signature).unwrap_err();
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
