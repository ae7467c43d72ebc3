use proptest::prelude::*;

use super::*;

const CLASS: &str = r#"{"request": {"inputs": []}, "expected": {"class": 2}}"#;

fn case(line: &str) -> Case {
    let mut cases = parse(line.as_bytes()).expect("a line");
    assert_eq!(cases.len(), 1);
    cases.remove(0)
}

#[test]
fn lines_are_counted_as_editors_do_and_empty_ones_left_out() {
    let file = format!("\u{feff}{CLASS}\r\n\n  {CLASS}  \n");
    let cases = parse(file.as_bytes()).expect("two lines");
    let lines: Vec<usize> = cases.iter().map(|case| case.line).collect();
    assert_eq!(lines, [1, 3]);
    assert_eq!(cases[0].ask, Ask::Tensors(r#"{"inputs": []}"#.into()));
}

#[test]
fn an_image_is_an_address_or_base64() {
    let ask = |image: &str| case(&format!(r#"{{"image": "{image}", "label": "daisy"}}"#)).ask;
    for address in ["daisy.jpg", "images/1.png", "/9j/a.jpg", "https://e/1"] {
        assert_eq!(ask(address), Ask::Image(Image::At(address.into())));
    }
    assert_eq!(
        ask("/9j/"),
        Ask::Image(Image::Bytes(vec![0xff, 0xd8, 0xff]))
    );
}

#[test]
fn a_malformed_line_is_named_by_its_number_and_told_what_to_write() {
    for (line, part) in [
        ("daisy", "no JSON object: write {\"request\""),
        ("[1]", "no JSON object"),
        (r#"{"request": {"#, "no JSON, from its column"),
        (
            r#"{"request": {}, "expected": {"class": 1}} trailing"#,
            "no JSON",
        ),
        ("{}", "asks for nothing: write"),
        (
            r#"{"image": "a.jpg", "lable": "daisy"}"#,
            "unknown field `lable`, expected one of",
        ),
        (
            r#"{"image": "a.jpg", "request": {}}"#,
            "both a request and an image",
        ),
        (r#"{"image": "a.jpg"}"#, "the image's label: write"),
        (r#"{"image": "a.jpg", "label": 7}"#, "the image's label"),
        (
            r#"{"image": "a.jpg", "label": "x", "expected": {}}"#,
            "the image's label",
        ),
        (
            r#"{"image": "no address", "label": "x"}"#,
            "neither an address",
        ),
        (r#"{"image": 7, "label": "x"}"#, "neither an address"),
        (r#"{"image": "", "label": "x"}"#, "neither an address"),
        (r#"{"request": {}}"#, "what the request's answer is"),
        (
            r#"{"request": {}, "label": "x"}"#,
            "what the request's answer is",
        ),
        (
            r#"{"request": [], "expected": {"class": 1}}"#,
            "no object: write a V2",
        ),
        (
            r#"{"request": {}, "expected": 7}"#,
            "\"expected\" that is no JSON object",
        ),
        (
            r#"{"request": {}, "expected": {}}"#,
            "neither classes nor outputs",
        ),
        (
            r#"{"request": {}, "expected": {"clas": 1}}"#,
            "unknown field `clas`",
        ),
        (
            r#"{"request": {}, "expected": {"class": -1}}"#,
            "has a class that is none",
        ),
        (
            r#"{"request": {}, "expected": {"class": []}}"#,
            "has a class that is none",
        ),
        (
            r#"{"request": {}, "expected": {"class": 1, "output": 2}}"#,
            "the name of the output",
        ),
        (
            r#"{"request": {}, "expected": {"class": 1, "tolerance": 2}}"#,
            "neither classes nor outputs",
        ),
        (
            r#"{"request": {}, "expected": {"outputs": []}}"#,
            "cannot be compared: write",
        ),
        (
            r#"{"request": {}, "expected": {"outputs": [{"name": "y"}]}}"#,
            "cannot be compared",
        ),
        (
            r#"{"request": {}, "expected": {"outputs": [{"name": "y", "data": [1]}], "tolerance": -1}}"#,
            "from 0 on",
        ),
    ] {
        let file = format!("{CLASS}\n{line}\n");
        let error = parse(file.as_bytes()).expect_err(line);
        assert_eq!(error.line, 2, "{line}");
        let said = error.to_string();
        assert!(
            said.starts_with("line 2 of the golden set ") && said.contains(part),
            "{line}: {said}"
        );
    }
    let error = parse(b"{\"image\": \"\xff\", \"label\": \"x\"}").expect_err("no text");
    assert!(error.what.contains("UTF-8"));
}

#[test]
fn a_file_without_a_line_or_with_too_many_or_too_long_ones_is_refused() {
    for empty in ["", "\n\n"] {
        let error = parse(empty.as_bytes()).expect_err("nothing");
        assert!(error.to_string().contains("the file is empty"), "{error}");
    }
    let many = vec![CLASS; MAX_LINES + 1].join("\n");
    let error = parse(many.as_bytes()).expect_err("too many");
    assert_eq!(
        (error.line, error.what.contains("10000 at most")),
        (MAX_LINES + 1, true)
    );
    let long = format!(
        r#"{{"image": "{}", "label": "x"}}"#,
        "A".repeat(MAX_LINE_BYTES)
    );
    let error = parse(long.as_bytes()).expect_err("too long");
    assert!(error.what.contains("beside the file"), "{error}");
}

#[test]
fn errors_tell_nothing_of_what_the_file_holds() {
    for line in [
        "secret",
        r#"{"image": ["secret"], "label": 1}"#,
        r#"{"request": "secret", "expected": {"class": "secret"}}"#,
    ] {
        let error = parse(line.as_bytes()).expect_err(line);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn answers_are_held_against_what_is_expected() {
    let label = r#"{"image": "a.jpg", "label": "daisy"}"#;
    let named = r#"{"request": {}, "expected": {"class": 1, "output": "p"}}"#;
    let rows = r#"{"request": {}, "expected": {"class": [1, 0]}}"#;
    let outputs = r#"{"request": {}, "expected": {"outputs": [{"name": "y", "data": [[1, 2]]}], "tolerance": 0.1}}"#;
    let two = r#"{"outputs": [{"name": "y", "data": [1]}, {"name": "p", "data": [0.1, 0.9]}]}"#;
    let y = |data: &str| {
        format!(
            r#"{{"outputs": [{{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": {data}}}]}}"#
        )
    };
    for (line, code, answer, how) in [
        (
            label,
            200,
            r#"{"model": "m", "predictions": [{"label": "daisy", "index": 3}]}"#,
            None,
        ),
        (
            label,
            200,
            r#"{"predictions": [{"label": "rose"}, {"label": "daisy"}]}"#,
            Some(r#""rose", not "daisy""#),
        ),
        (label, 200, r#"{"predictions": []}"#, Some("no label")),
        (label, 200, r#"{"outputs": []}"#, Some("answers no labels")),
        (
            label,
            422,
            r#"{"error": "not an image"}"#,
            Some("line 1: 422: not an image"),
        ),
        (
            label,
            500,
            "<html>",
            Some("500: an answer without a sentence"),
        ),
        (label, 200, "<html>", Some("no JSON")),
        (CLASS, 200, &y("[1, 2, 5]"), None),
        (CLASS, 200, &y("[1, 5, 2]"), Some("class 1, not 2")),
        (
            CLASS,
            200,
            two,
            Some(r#""output" must say which of "y", "p""#),
        ),
        (
            CLASS,
            200,
            r#"{"outputs": [{"name": "y"}]}"#,
            Some("no values as JSON"),
        ),
        (named, 200, two, None),
        (
            named,
            200,
            &y("[1, 2]"),
            Some(r#"there is no output "p"; there is "y""#),
        ),
        (rows, 200, &y("[[1, 2], [2, 1]]"), None),
        (
            rows,
            200,
            &y("[[1, 2], [1, 2]]"),
            Some("class 1 in row 1, not 0"),
        ),
        (outputs, 200, &y("[1.05, 2]"), None),
        (
            outputs,
            200,
            &y("[1.5, 2]"),
            Some(r#"the output "y" has 1 of 2 values differ"#),
        ),
        (outputs, 200, r#"{"outputs": []}"#, Some("there is none")),
    ] {
        let judged = case(line).judge(code, answer.as_bytes());
        match how {
            None => assert_eq!(judged, Ok(()), "{line} {answer}"),
            Some(how) => {
                let said = judged.expect_err(answer);
                assert!(
                    said.starts_with("line 1: ") && said.contains(how),
                    "{line} {answer}: {said}"
                );
            }
        }
    }
}

#[test]
fn an_agreement_has_a_share_and_a_lower_bound() {
    let of = |agreed, all| Agreement { agreed, all };
    // Wilson's interval, one-sided 99 %: of 100 of 100, 1 / (1 + z²/100).
    for (agreement, rate, bound) in [
        (of(100, 100), 1.0, 0.948_674),
        (of(0, 10), 0.0, 0.0),
        (of(1000, 1000), 1.0, 0.994_619),
        (of(597, 600), 0.995, 0.982_575),
    ] {
        let got = agreement.lower_bound().expect("a bound");
        assert!((got - bound).abs() < 2e-6, "{agreement:?}: {got}");
        assert_eq!(agreement.rate(), Some(rate));
    }
    assert_eq!((of(0, 0).rate(), of(0, 0).lower_bound()), (None, None));
}

fn judgement(agreed: u32, all: u32, stable: Option<u32>) -> Judgement {
    Judgement {
        candidate: Agreement { agreed, all },
        stable: stable.map(|agreed| Agreement { agreed, all }),
        disagreements: vec![r#"line 3: "rose", not "daisy""#.into()],
    }
}

#[test]
fn a_verdict_holds_the_share_against_what_is_asked_for() {
    for (agreed, all, min, passes) in [
        (99, 100, 0.99, true),
        (98, 100, 0.99, false),
        (100, 100, 1.0, true),
        (9_999, 10_000, 1.0, false),
        (0, 5, 0.0, true),
        (0, 0, 0.0, false),
        (29, 100, 0.29, true),
    ] {
        let verdict = judgement(agreed, all, None).verdict(min);
        assert_eq!(
            matches!(verdict, Verdict::Passed(_)),
            passes,
            "{agreed} of {all}, {min}: {verdict:?}"
        );
    }
    let Verdict::Failed(said) = judgement(91, 100, Some(99)).verdict(0.99) else {
        panic!("failed")
    };
    assert_eq!(
        said,
        "91 of 100 answers agree with the golden set (91.0 %, with 99 % confidence at least 82.0 %), and 99.0 % are \
         asked for; of the stable revision's answers 99 agree. line 3: \"rose\", not \"daisy\""
    );
    let Verdict::Failed(said) = judgement(91, 100, Some(90)).verdict(0.99) else {
        panic!("failed")
    };
    assert!(said.contains("the set itself may be out of date"), "{said}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_and_an_error_names_a_line_that_is_there(bytes: Vec<u8>) {
        if let Err(error) = parse(&bytes) {
            let lines = bytes.split(|byte| *byte == b'\n').count();
            prop_assert!((1..=lines).contains(&error.line));
        }
    }

    #[test]
    fn an_agreement_is_never_below_its_bound(all in 1_u32..5000, wrong in 0_u32..5000) {
        let agreement = Agreement { agreed: all.saturating_sub(wrong), all };
        let (rate, bound) = (agreement.rate().unwrap_or(2.0), agreement.lower_bound().unwrap_or(2.0));
        prop_assert!((0.0..=1.0).contains(&bound) && bound <= rate, "{bound} {rate}");
    }

    #[test]
    fn any_answer_is_judged_without_a_panic(bytes: Vec<u8>, code in 100_u16..600) {
        let judged = case(CLASS).judge(code, &bytes);
        prop_assert!(judged.is_err());
    }
}
