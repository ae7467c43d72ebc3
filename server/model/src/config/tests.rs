use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<ModelConfig, Failure> {
    parse(text, |name| Ok(vec![format!("from {name}")]))
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
    assert_eq!(
        output,
        Output::Classification {
            labels: vec![],
            softmax: false,
            top_k: 5
        }
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
            channels: Channels::Bgr,
            layout: Layout::Nhwc,
            mean: vec![1.0, 2.5, 3.0],
            std: vec![127.5; 3],
        }),
        output: Output::Classification {
            labels: vec!["from l.txt".into()],
            softmax: true,
            top_k: 1,
        },
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
    let read = |text: &str| parse_labels("labels.txt", text);
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
        load(&file, None)
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
        let _ = parse_labels("labels.txt", &text);
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
