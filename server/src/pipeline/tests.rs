use ortolan_model::{
    Activation, BytesInput, Channels, Classification, Embedding, ImageInput, Layout, Pooling,
    Resize, RowsInput, TextInput,
};

use super::*;
use crate::{
    dtype::DataType::{Fp32, Int32, Int64, Uint8},
    signature::written::{Tensors, signature},
};

fn image() -> Input {
    Input::Image(ImageInput {
        width: 8,
        height: 4,
        resize: Resize::Crop,
        short_side: None,
        channels: Channels::Rgb,
        layout: Layout::Nchw,
        mean: vec![0.0; 3],
        std: vec![1.0; 3],
    })
}

fn bytes() -> Input {
    Input::Bytes(BytesInput {
        head: 4,
        middle: 0,
        tail: 4,
        block: 8,
        padding: 256,
        strip: false,
    })
}

fn text() -> Input {
    Input::Text(TextInput {
        tokenizer: "/nowhere/tokenizer.json".into(),
        max_tokens: None,
        overflow: ortolan_model::Overflow::Truncate,
        max_run_tokens: 64,
        ids: "input_ids".into(),
        mask: "attention_mask".into(),
        types: "token_type_ids".into(),
    })
}

fn classes() -> Classification {
    Classification {
        tensor: None,
        labels: vec!["a".into(), "b".into()],
        activation: Activation::Softmax,
        top_k: 5,
        threshold: None,
    }
}

fn refused(input: Input, output: Output, signature: &Signature, part: &str) {
    let sentence = Prepared::new(&Pipeline { input, output }, signature)
        .err()
        .unwrap();
    assert!(
        sentence.starts_with("model.yaml: ") && sentence.contains(part),
        "{part:?} is not in: {sentence}"
    );
}

const IMAGE: Tensors<'_> = &[("x", Fp32, &[-1, 3, 4, 8])];
const SCORES: Tensors<'_> = &[("y", Fp32, &[-1, 2])];

#[test]
fn a_pipeline_that_fits_its_model_is_taken_with_the_output_that_it_reads() {
    let both: Tensors<'_> = &[("label", Int64, &[-1]), ("scores", Fp32, &[-1, 2])];
    let pipeline = Pipeline {
        input: image(),
        output: Output::Classification(classes()),
    };
    let prepared = Prepared::new(&pipeline, &signature(IMAGE, both)).unwrap();
    assert_eq!(prepared.writer.wanted(), [1]);
    let shapes = prepared.warm_up_shapes(&signature(IMAGE, both));
    assert_eq!(shapes, [(0, vec![1, 3, 4, 8])]);
    let named = Output::Raw {
        tensors: vec!["scores".into(), "label".into()],
    };
    let pipeline = Pipeline {
        input: image(),
        output: named,
    };
    let prepared = Prepared::new(&pipeline, &signature(IMAGE, both)).unwrap();
    assert_eq!(prepared.writer.wanted(), [1, 0]);
}

#[test]
fn an_input_that_does_not_fit_its_model_is_refused_at_load() {
    let out = || Output::Classification(classes());
    let cases: [(Input, Tensors<'_>, &str); 9] = [
        (image(), &[("x", Uint8, &[-1, 3, 4, 8])], "is UINT8"),
        (image(), &[("x", Fp32, &[-1, 3, 8, 4])], "[1,3,4,8]"),
        (
            image(),
            &[("x", Fp32, &[1]), ("z", Fp32, &[1])],
            "and the model has 2",
        ),
        (bytes(), &[("x", Uint8, &[-1, 8])], "a padding of 0 to 255"),
        (bytes(), &[("x", Int32, &[-1, 9])], "makes the shape [1,8]"),
        (
            text(),
            &[("ids", Int64, &[-1, -1])],
            "nothing for the input \"ids\"",
        ),
        (text(), &[("input_ids", Fp32, &[-1, -1])], "is FP32 [-1,-1]"),
        (
            text(),
            &[("attention_mask", Int64, &[-1, -1])],
            "the model has none; name it in ids",
        ),
        (
            text(),
            &[("input_ids", Int64, &[-1, -1])],
            "the tokenizer tokenizer.json cannot be read",
        ),
    ];
    for (input, inputs, part) in cases {
        refused(input, out(), &signature(inputs, SCORES), part);
    }
    let rows = Input::Rows(RowsInput {
        columns: Vec::new(),
        missing: None,
    });
    let cube: Tensors<'_> = &[("x", Fp32, &[-1, 3, 3])];
    refused(rows, out(), &signature(cube, SCORES), "has [-1,3,3]");
}

#[test]
fn an_output_that_is_not_there_or_of_another_kind_is_refused_at_load() {
    let vector = |pooling| {
        Output::Embedding(Embedding {
            tensor: None,
            pooling,
            normalize: true,
        })
    };
    let named = |tensor: &str| {
        Output::Classification(Classification {
            tensor: Some(tensor.into()),
            ..classes()
        })
    };
    let cases: [(Output, Tensors<'_>, &str); 7] = [
        (named("y"), &[("y", Fp32, &[-1, 3])], "2 lines"),
        (named("y"), &[("y", Uint8, &[-1, 2])], "\"y\" is UINT8"),
        (
            named("z"),
            SCORES,
            "no output \"z\"; the model's outputs are \"y\"",
        ),
        (
            Output::Classification(classes()),
            &[("y", Int64, &[-1])],
            "the model has none",
        ),
        (vector(Some(Pooling::Mean)), SCORES, "without pooling"),
        (
            vector(None),
            &[("y", Fp32, &[-1, 2, 3, 4])],
            "has [-1,2,3,4]",
        ),
        (
            Output::Raw {
                tensors: vec!["z".into()],
            },
            SCORES,
            "no output \"z\"",
        ),
    ];
    for (output, outputs, part) in cases {
        refused(image(), output, &signature(IMAGE, outputs), part);
    }
}

#[test]
fn a_body_is_told_by_its_content_type_or_else_by_its_first_byte() {
    use form::Form;
    let prepare = |input, inputs| {
        let output = Output::Raw { tensors: vec![] };
        let prepared = Prepared::new(&Pipeline { input, output }, &signature(inputs, SCORES));
        prepared.unwrap().reader
    };
    let image = prepare(image(), IMAGE);
    let bytes = prepare(bytes(), &[("x", Int32, &[-1, 8])]);
    let rows = Input::Rows(RowsInput {
        columns: Vec::new(),
        missing: None,
    });
    let rows = prepare(rows, &[("x", Fp32, &[-1, 2])]);
    let curl = Some("application/x-www-form-urlencoded");
    let told = |reader: &Reader, kind, body: &[u8]| {
        form::of(reader, kind).map(|form| form.told_by(reader, body))
    };
    assert_eq!(told(&image, None, b""), Ok(Form::Image(None)));
    let jpeg = Ok(Form::Image(Some(image::Kind::Jpeg)));
    assert_eq!(told(&image, Some("Image/JPEG; q=1"), b""), jpeg);
    assert_eq!(told(&bytes, Some("application/pdf"), b"%"), Ok(Form::Bytes));
    assert_eq!(told(&rows, curl, b" [[1,2]]"), Ok(Form::Json));
    assert_eq!(told(&rows, curl, b"a,b"), Ok(Form::Csv { header: true }));
    let absent = Some("text/csv; charset=UTF-8; header=absent");
    assert_eq!(told(&rows, absent, b"1,2"), Ok(Form::Csv { header: false }));
    for (reader, kind, part) in [
        (
            &image,
            "text/plain",
            "send image/jpeg, image/png or image/webp",
        ),
        (&rows, "image/png", "send application/json or text/csv"),
        (&rows, "text/csv; charset=latin1", "send UTF-8"),
    ] {
        let InputError::Kind(sentence) = form::of(reader, Some(kind)).unwrap_err() else {
            panic!("not a matter of kind: {kind}")
        };
        assert!(sentence.contains(part), "{sentence}");
    }
}
