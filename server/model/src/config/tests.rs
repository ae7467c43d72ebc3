use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// A package with the files that the configurations here name.
static PACKAGE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("l.txt"), "daisy\npalace\n").unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    dir
});

fn source(name: &str, text: &str) -> Source {
    Source {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn read_all(sources: &[Source]) -> Result<ModelConfig, Failure> {
    let place = Place {
        base: PACKAGE.path(),
        root: None,
    };
    parse(sources, &place)
}

fn read(text: &str) -> Result<ModelConfig, Failure> {
    read_all(&[source(FILE, text)])
}

fn refused(text: &str, words: &[&str]) {
    let failure = read(text).unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfig);
    for word in words {
        assert!(
            failure.message.contains(word),
            "{word:?} is not in: {failure}"
        );
    }
    assert!(!failure.message.contains('\n'));
}

/// A pipeline whose input and output have these fields besides.
fn with(input: &str, output: &str) -> String {
    format!(
        "pipeline:\n  input: {{kind: image, width: 2, height: 2{input}}}\n  \
         output: {{kind: classification{output}}}\n"
    )
}

#[test]
fn an_empty_file_and_comments_are_no_pipeline() {
    for text in [
        "",
        "\n\n",
        "# nothing\n",
        "{}",
        "pipeline:\n",
        "pipeline: null",
    ] {
        assert_eq!(read(text), Ok(ModelConfig::default()), "{text:?}");
    }
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = read(&with("", "")).unwrap();
    let Some(Pipeline {
        input: Input::Image(image),
        output,
    }) = config.pipeline
    else {
        panic!("no pipeline")
    };
    assert_eq!(
        (image.resize, image.channels, image.layout),
        (Resize::Crop, Channels::Rgb, Layout::Nchw)
    );
    assert_eq!((image.mean, image.std), (vec![0.0; 3], vec![1.0; 3]));
    assert_eq!(output, Output::Classification(plain_classification()));
}

fn plain_classification() -> Classification {
    Classification {
        tensor: None,
        labels: vec![],
        activation: Activation::None,
        top_k: 5,
        threshold: None,
    }
}

/// The two halves of a pipeline with these inputs and outputs.
fn halves(input: &str, output: &str) -> Result<(Input, Output), Failure> {
    let text = format!("pipeline:\n  input: {{{input}}}\n  output: {{{output}}}\n");
    read(&text).map(|config| {
        let pipeline = config.pipeline.unwrap();
        (pipeline.input, pipeline.output)
    })
}

#[test]
fn a_text_needs_no_more_than_its_kind() {
    let (input, output) = halves("kind: text", "kind: embedding").unwrap();
    let expected = TextInput {
        tokenizer: PACKAGE.path().join("tokenizer.json"),
        max_tokens: None,
        overflow: Overflow::Truncate,
        max_run_tokens: 16_384,
        ids: "input_ids".into(),
        mask: "attention_mask".into(),
        types: "token_type_ids".into(),
    };
    assert_eq!(input, Input::Text(expected));
    let expected = Embedding {
        tensor: None,
        pooling: None,
        normalize: true,
    };
    assert_eq!(output, Output::Embedding(expected));
    let (input, output) = halves(
        "kind: text, tokenizer: ./tokenizer.json, maxTokens: 8, overflow: refuse, maxRunTokens: 64, ids: i, mask: m, types: t",
        "kind: embedding, tensor: y, pooling: cls, normalize: false",
    )
    .unwrap();
    let Input::Text(text) = input else {
        panic!("no text")
    };
    assert_eq!(
        (text.max_tokens, text.overflow),
        (Some(8), Overflow::Refuse)
    );
    assert_eq!((text.ids.as_str(), text.max_run_tokens), ("i", 64));
    assert!(matches!(
        output,
        Output::Embedding(Embedding {
            pooling: Some(Pooling::Cls),
            normalize: false,
            ..
        })
    ));
}

#[test]
fn bytes_and_rows_are_read_with_their_defaults() {
    let (input, output) = halves(
        "kind: bytes, head: 1024, tail: 1024, strip: true",
        "kind: classification, labels: l.txt, sigmoid: true, threshold: 0.5",
    )
    .unwrap();
    let expected = BytesInput {
        head: 1024,
        middle: 0,
        tail: 1024,
        block: 4096,
        padding: 256,
        strip: true,
    };
    assert_eq!(input, Input::Bytes(expected));
    let expected = Classification {
        labels: vec!["daisy".into(), "palace".into()],
        activation: Activation::Sigmoid,
        threshold: Some(0.5),
        ..plain_classification()
    };
    assert_eq!(output, Output::Classification(expected));
    let (input, output) = halves(
        "kind: rows, columns: [a, {name: b, missing: 0}, {name: c, missing: none}], missing: .nan",
        "kind: raw, tensors: [p]",
    )
    .unwrap();
    let Input::Rows(rows) = input else {
        panic!("no rows")
    };
    let names: Vec<&str> = rows.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(rows.columns[0].missing, None);
    assert_eq!(rows.columns[1].missing, Some(Missing::Number(0.0)));
    assert_eq!(rows.columns[2].missing, Some(Missing::Text("none".into())));
    assert!(matches!(rows.missing, Some(Missing::Number(n)) if n.is_nan()));
    assert_eq!(
        output,
        Output::Raw {
            tensors: vec!["p".into()]
        }
    );
}

#[test]
fn what_does_not_go_together_is_refused() {
    let bytes = "kind: bytes, head: 8";
    let cases = [
        (
            bytes,
            "kind: classification, softmax: true, sigmoid: true",
            "softmax where one class holds",
        ),
        (
            bytes,
            "kind: classification, threshold: .nan",
            "no finite number",
        ),
        (
            bytes,
            "kind: embedding, pooling: mean",
            "the input is no text",
        ),
        (
            bytes,
            "kind: classification, labels: none.txt",
            "none.txt does not exist, although model.yaml names it",
        ),
        ("kind: bytes", "kind: raw", "takes no bytes"),
        (
            "kind: bytes, head: 8, block: 4",
            "kind: raw",
            "write 8 or more",
        ),
        ("kind: bytes, head: 9999999", "kind: raw", "at most 1048576"),
        (
            "kind: bytes, head: 18446744073709551615, tail: 9",
            "kind: raw",
            "at most 1048576",
        ),
        ("kind: text, maxTokens: 0", "kind: raw", "maxTokens is 0"),
        (
            "kind: text, maxRunTokens: 0",
            "kind: raw",
            "maxRunTokens is 0",
        ),
        (
            "kind: text, tokenizer: t.json",
            "kind: raw",
            "t.json does not exist, although model.yaml names it",
        ),
        (
            "kind: text, tokenizer: ../t.json",
            "kind: raw",
            "a file beside model.yaml, for example tokenizer.json",
        ),
        (
            "kind: rows, columns: [a, a]",
            "kind: raw",
            "names \"a\" twice",
        ),
        ("kind: rows, columns: [\"\"]", "kind: raw", "an empty name"),
        ("kind: text, width: 3", "kind: raw", "maxTokens"),
        ("kind: rows", "kind: raw, topK: 3", "tensors"),
    ];
    for (input, output, words) in cases {
        let failure = halves(input, output).unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidConfig);
        assert!(
            failure.message.contains(words),
            "{words:?} is not in: {failure}"
        );
        assert!(!failure.message.contains('\n'), "{failure}");
    }
}

#[test]
fn a_users_own_file_replaces_the_sections_that_it_has() {
    let packaged = source(FILE, &with("", ", topK: 3"));
    let own = source("/own.yaml", &with("", ", labels: l.txt"));
    let config = read_all(&[own, source(FILE, &packaged.text)]).unwrap();
    let Some(Output::Classification(classes)) = config.pipeline.map(|p| p.output) else {
        panic!("no classification")
    };
    assert_eq!((classes.top_k, classes.labels.len()), (5, 2));
    let config = read_all(&[source("/own.yaml", "# nothing\n"), packaged]).unwrap();
    let Some(Output::Classification(classes)) = config.pipeline.map(|p| p.output) else {
        panic!("no classification")
    };
    assert_eq!(classes.top_k, 3);
    let wrong = [source("/own.yaml", "x: 1"), source(FILE, "")];
    let failure = read_all(&wrong).unwrap_err();
    assert!(failure.message.starts_with("/own.yaml: "), "{failure}");
    // A mistake in the package's file is not hidden.
    let wrong = [source("/own.yaml", &with("", "")), source(FILE, "x: 1")];
    assert!(
        read_all(&wrong)
            .unwrap_err()
            .message
            .starts_with("model.yaml: ")
    );
}

#[test]
fn the_schema_is_that_of_the_types() {
    let schema = schemars::schema_for!(raw::Schema);
    let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/model.schema.json");
    if std::env::var_os("ORTOLAN_WRITE_SCHEMA").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == text,
        "server/model/model.schema.json is not what the types say; run \
         ORTOLAN_WRITE_SCHEMA=1 cargo test -p ortolan-model schema"
    );
}

#[test]
fn every_value_is_read() {
    let input = ", resize: stretch, channels: BGR, layout: NHWC, mean: [1, 2.5, 3], std: [127.5]";
    let config = read(&with(input, ", labels: l.txt, softmax: true, topK: 1")).unwrap();
    let expected = Pipeline {
        input: Input::Image(ImageInput {
            width: 2,
            height: 2,
            resize: Resize::Stretch,
            short_side: None,
            channels: Channels::Bgr,
            layout: Layout::Nhwc,
            mean: vec![1.0, 2.5, 3.0],
            std: vec![127.5; 3],
        }),
        output: Output::Classification(Classification {
            tensor: None,
            labels: vec!["daisy".into(), "palace".into()],
            activation: Activation::Softmax,
            top_k: 1,
            threshold: None,
        }),
    };
    assert_eq!(config.pipeline, Some(expected));
}

#[test]
fn an_unknown_field_is_named_with_what_is_known() {
    refused("pipelines: {}", &["model.yaml", "pipelines", "pipeline"]);
    refused(
        &with(", scale: [1]", ""),
        &["scale", "mean", "std", "width"],
    );
    refused(&with("", ", top_k: 3"), &["top_k", "topK", "softmax"]);
    refused(
        &with(", resize: squeeze", ""),
        &["squeeze", "fit", "crop", "stretch"],
    );
    refused(&with(", channels: rgb", ""), &["rgb", "RGB", "BGR"]);
    refused(
        "pipeline: {input: {kind: audio, width: 1, height: 1}, output: {kind: classification}}",
        &["audio", "image"],
    );
    refused(
        "pipeline: {input: {kind: image, width: 1}, output: {kind: classification}}",
        &["height"],
    );
    refused("pipeline: {output: {kind: classification}}", &["input"]);
}

#[test]
fn values_out_of_range_are_refused_with_what_to_write() {
    refused(
        &with(", mean: [1, 2]", ""),
        &["mean has 2 values", "one for each colour"],
    );
    refused(&with(", std: [0]", ""), &["std holds a 0", "divisor"]);
    refused(
        &with(", shortSide: 1", ""),
        &["shortSide is 1", "2 to 8192"],
    );
    refused(
        &with(", shortSide: 4, resize: fit", ""),
        &["belongs to resize: crop"],
    );
    refused(&with(", mean: [.nan]", ""), &["mean", "no finite number"]);
    refused(&with(", std: [.inf]", ""), &["std", "no finite number"]);
    refused(&with("", ", topK: 0"), &["topK is 0"]);
    refused(&with("", ", topK: -1"), &["model.yaml"]);
    refused(
        "pipeline: {input: {kind: image, width: 0, height: 2}, output: {kind: classification}}",
        &["width is 0", "1 to 8192"],
    );
    refused(
        "pipeline: {input: {kind: image, width: 2, height: 9000}, output: {kind: classification}}",
        &["height is 9000"],
    );
    refused("pipeline: [", &["model.yaml"]);
    refused("a: 1\n---\nb: 2\n", &["model.yaml"]);
}

#[test]
fn labels_are_one_a_line_whatever_the_line_ends() {
    let read = |text: &str| parse_labels(FILE, "labels.txt", text);
    assert_eq!(
        read("\u{feff}daisy\r\n great white shark \n\n"),
        Ok(vec!["daisy".to_owned(), "great white shark".to_owned()])
    );
    assert!(
        read("a\n\nb\n")
            .unwrap_err()
            .message
            .contains("line 2 of the labels file labels.txt is empty")
    );
    assert!(
        read(" \n")
            .unwrap_err()
            .message
            .contains("the labels file labels.txt is empty")
    );
}

#[test]
fn a_labels_file_lies_beside_its_model_yaml() {
    let dir = tempfile::tempdir().unwrap();
    let load_with = |labels: &str| {
        let file = dir.path().join(FILE);
        std::fs::write(&file, with("", &format!(", labels: {labels:?}"))).unwrap();
        load(Some(&file), None, dir.path(), None)
    };
    for outside in ["/etc/passwd", "../labels.txt", "a/../../b", ""] {
        let failure = load_with(outside).unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidConfig);
        assert!(
            failure.message.contains("a file beside model.yaml"),
            "{failure}"
        );
    }
    let failure = load_with("none.txt").unwrap_err();
    assert!(
        failure
            .message
            .contains("none.txt does not exist, although model.yaml names it"),
        "{failure}"
    );
    std::fs::write(dir.path().join("bin"), [0xff, 0xfe]).unwrap();
    assert!(load_with("bin").unwrap_err().message.contains("not UTF-8"));
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/l.txt"), "daisy\n").unwrap();
    assert!(load_with("sub/l.txt").is_ok());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = read(&text);
        let _ = parse_labels(FILE, "labels.txt", &text);
    }

    #[test]
    fn what_passes_keeps_its_promises(
        mean in proptest::collection::vec(any::<f32>(), 0..5),
        std in proptest::collection::vec(any::<f32>(), 0..5),
        width in 0_u32..10_000,
    ) {
        let text = format!(
            "pipeline: {{input: {{kind: image, width: {width}, height: 1, mean: {mean:?}, std: {std:?}}}, \
             output: {{kind: classification}}}}"
        );
        if let Ok(ModelConfig { pipeline: Some(Pipeline { input: Input::Image(image), .. }), .. }) = read(&text) {
            prop_assert!(image.mean.len() == 3 && image.std.len() == 3);
            prop_assert!(image.mean.iter().chain(&image.std).all(|v| v.is_finite()));
            prop_assert!(!image.std.contains(&0.0) && (1..=8192).contains(&image.width));
        }
    }
}
