use proptest::prelude::*;

use super::*;

fn by(kind: &str, more: &str) -> Compare {
    serde_json::from_str(&format!(r#"{{"kind": "{kind}"{more}}}"#)).unwrap()
}

/// An answer of V2 with one output of floats.
fn floats(shape: &str, data: &str) -> String {
    format!(
        r#"{{"model_name":"m","model_version":"1","outputs":[{{"name":"y","datatype":"FP32","shape":{shape},"data":{data}}}]}}"#
    )
}

fn typed(datatype: &str, shape: &str, data: &str) -> String {
    floats(shape, data).replace("FP32", datatype)
}

fn check(compare: &Compare, cases: &[(&str, &str, Verdict)]) {
    for (users, other, expected) in cases {
        assert_eq!(
            compare.pair(users.as_bytes(), other.as_bytes()),
            *expected,
            "{compare:?}\n{users}\n{other}"
        );
    }
}

use Verdict::{Agree, Differ, Unclear};

#[test]
fn classification_looks_at_the_best_of_each_row_and_at_nothing_else() {
    let one = floats("[1,3]", "[0.1,0.7,0.2]");
    check(
        &by("Classification", ""),
        &[
            (&one, &floats("[1,3]", "[0.3,0.4,0.3]"), Agree),
            (&one, &floats("[1,3]", "[[0.3,0.4,0.3]]"), Agree),
            (&one, &one.replace("\"1\"", "\"2\""), Agree),
            (&one, &floats("[1,3]", "[0.7,0.1,0.2]"), Differ),
            (&one, &floats("[1,4]", "[0.1,0.7,0.2,0.0]"), Differ),
            (&one, &floats("[2,3]", "[0.1,0.7,0.2,0.1,0.7,0.2]"), Differ),
            (&one, &floats("[1,3]", "[0.1,null,0.2]"), Differ),
            (&one, "not JSON", Differ),
            (&one, r#"{"error":"no"}"#, Differ),
            (
                &floats("[2,2]", "[1.0,0.0,0.0,1.0]"),
                &floats("[2,2]", "[0.9,0.1,0.9,0.1]"),
                Differ,
            ),
            (&floats("[3]", "[1,2,3]"), &floats("[3]", "[0,0,9]"), Agree),
        ],
    );
}

#[test]
fn classes_of_the_first_row_are_told_where_classes_are_compared() {
    let one = floats("[2,3]", "[0.1,0.7,0.2,0.7,0.1,0.2]");
    let other = floats("[2,3]", "[0.1,0.2,0.7,0.7,0.1,0.2]");
    let classes = |kind: &str, other: &str| {
        let told = by(kind, "").pair_and_classes(one.as_bytes(), other.as_bytes());
        told.1.map(|both| both.join(" "))
    };
    assert_eq!(classes("Classification", &other).as_deref(), Some("1 2"));
    assert_eq!(classes("Classification", &one).as_deref(), Some("1 1"));
    assert_eq!(classes("Classification", "{}").as_deref(), Some("1 none"));
    assert_eq!(classes("Embedding", &other), None);
    let unclear = by("Classification", "").pair_and_classes(b"{}", one.as_bytes());
    assert_eq!(unclear, (Unclear, None));
}

#[test]
fn labels_are_classes_themselves_and_a_single_score_is_none() {
    let whole = typed("INT64", "[2]", "[3,5]");
    let text = typed("BYTES", "[1]", r#"["cat"]"#);
    let ranked = typed("BYTES", "[1,2]", r#"["0.9:3:cat","0.1:4:dog"]"#);
    check(
        &by("Classification", ""),
        &[
            (&whole, &whole, Agree),
            (&whole, &typed("INT64", "[2]", "[3,4]"), Differ),
            (&text, &typed("BYTES", "[1]", r#"["dog"]"#), Differ),
            (
                &ranked,
                &typed("BYTES", "[1,2]", r#"["0.5:3:cat","0.4:7:cow"]"#),
                Agree,
            ),
            (
                &ranked,
                &typed("BYTES", "[1,2]", r#"["0.9:4:dog","0.1:3:cat"]"#),
                Differ,
            ),
            (
                &floats("[2,1]", "[0.4,0.6]"),
                &floats("[2,1]", "[0.4,0.6]"),
                Unclear,
            ),
        ],
    );
}

#[test]
fn the_servers_other_forms_are_read_too() {
    let cat = r#"{"model":"m","version":"1","predictions":[{"label":"cat","index":3,"probability":0.9},{"label":"dog","index":4,"probability":0.1}]}"#;
    let unsure = cat
        .replace("0.9", "0.6")
        .replace("\"version\":\"1\"", "\"version\":\"2\"");
    let none = r#"{"predictions":[[],[{"index":1,"probability":0.5}]]}"#;
    let rows = r#"{"predictions":[[0.1,0.9],[0.8,0.2]]}"#;
    let named = r#"{"predictions":[{"scores":[0.1,0.9],"other":[1,2]}]}"#;
    check(
        &by("Classification", ""),
        &[
            (cat, &unsure, Agree),
            (cat, &cat.replace("cat", "cow"), Differ),
            (none, none, Agree),
            (
                none,
                &none.replace("[],", "[{\"index\":2,\"probability\":0.5}],"),
                Differ,
            ),
            (rows, r#"{"predictions":[[0.4,0.6],[0.6,0.4]]}"#, Agree),
            (rows, r#"{"predictions":[[0.4,0.6],[0.4,0.6]]}"#, Differ),
            (named, named, Unclear),
        ],
    );
    let scores = by("Classification", r#", "output": "scores""#);
    let other = named.replace("0.9", "0.05");
    check(
        &scores,
        &[
            (named, named, Agree),
            (named, &other, Differ),
            (rows, rows, Agree),
        ],
    );
    let vectors = r#"{"model":"m","version":"1","embeddings":[[1.0,0.0],[0.0,2.0]]}"#;
    let openai =
        r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0,0.5]}]}"#;
    check(
        &by("Embedding", ""),
        &[
            (vectors, &vectors.replace("2.0", "7.0"), Agree),
            (vectors, &vectors.replace("[1.0,0.0]", "[0.0,1.0]"), Differ),
            (openai, openai, Agree),
            (openai, &openai.replace("0.5", "0.6"), Differ),
            (openai, vectors, Differ),
            (
                r#"{"data":[{"embedding":"AACAPw=="}]}"#,
                r#"{"data":[{"embedding":"AACAPw=="}]}"#,
                Unclear,
            ),
        ],
    );
}

#[test]
fn regression_is_relative_to_the_larger_number() {
    let at = |tolerance: &str| by("Regression", &format!(r#", "tolerance": {tolerance}"#));
    let one = |number: &str| floats("[1,1]", &format!("[{number}]"));
    let cases = [
        ("100.0", "100.9", "0.01", Agree),
        ("100.0", "101.1", "0.01", Differ),
        ("-100.0", "100.0", "0.01", Differ),
        ("0.0", "0.0", "0", Agree),
        ("0.0", "1e-9", "0.01", Agree),
        ("0.0", "1e-3", "0.01", Differ),
        ("1.0", "1.0000001", "0", Differ),
        ("null", "null", "0.01", Agree),
        ("null", "1.0", "0.01", Differ),
        ("1.0", "null", "0.01", Differ),
    ];
    for (users, other, tolerance, expected) in cases {
        check(&at(tolerance), &[(&one(users), &one(other), expected)]);
    }
    let default = by("Regression", "");
    check(
        &default,
        &[
            (&one("1000.0"), &one("1000.9"), Agree),
            (&one("1000.0"), &one("1002.0"), Differ),
            (
                &typed("INT32", "[2]", "[1,2]"),
                &typed("INT32", "[2]", "[1,2]"),
                Agree,
            ),
            (&typed("BYTES", "[1]", r#"["a"]"#), &one("1.0"), Unclear),
            (&floats("[2]", "[1.0,2.0]"), &floats("[1]", "[1.0]"), Differ),
        ],
    );
}

#[test]
fn embeddings_agree_as_far_as_the_cosine_says() {
    // cos 1° = 0.99985, cos 3° = 0.99863
    let degrees = |angle: f64| {
        let (sin, cos) = angle.to_radians().sin_cos();
        floats("[1,2]", &format!("[{cos},{sin}]"))
    };
    let zero = floats("[1,2]", "[0.0,0.0]");
    check(
        &by("Embedding", ""),
        &[
            (&degrees(10.0), &degrees(11.0), Agree),
            (&degrees(10.0), &degrees(13.0), Differ),
            (&degrees(10.0), &degrees(190.0), Differ),
            (&zero, &zero, Agree),
            (&floats("[1,2]", "[null,1.0]"), &degrees(1.0), Unclear),
            (&degrees(1.0), &floats("[1,2]", "[null,1.0]"), Differ),
            (&zero, &degrees(1.0), Differ),
            (&degrees(1.0), &zero, Differ),
            (&degrees(1.0), &floats("[1,3]", "[1.0,0.0,0.0]"), Differ),
        ],
    );
    let exactly = by("Embedding", r#", "tolerance": 0"#);
    check(
        &exactly,
        &[(
            &degrees(33.0),
            &floats("[1,2]", "[2.0,1.2988151863]"),
            Agree,
        )],
    );
}

#[test]
fn exact_is_what_the_outputs_say_and_without_json_the_bytes() {
    let one = floats("[2]", "[0.5,0.25]");
    check(
        &by("Exact", ""),
        &[
            (&one, &one.replace("\"1\"", "\"2\""), Agree),
            (&one, &one.replace("[0.5,0.25]", "[ 0.50, 2.5e-1 ]"), Agree),
            (&one, &one.replace("0.25", "0.26"), Differ),
            (&one, "text", Differ),
            ("text", "text", Agree),
            ("text", "other", Differ),
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, Agree),
            (r#"{"a":1}"#, r#"{"a":2}"#, Differ),
        ],
    );
    let named = by("Exact", r#", "output": "y""#);
    check(
        &named,
        &[
            (&one, &one, Agree),
            (&one, &one.replace("\"y\"", "\"z\""), Differ),
            (&one.replace("\"y\"", "\"z\""), &one, Unclear),
            ("text", "text", Unclear),
        ],
    );
}

#[test]
fn answers_without_anything_to_compare_are_unclear() {
    for body in [
        "",
        "{}",
        "[]",
        "[[1]]",
        r#"{"outputs":[]}"#,
        r#"{"outputs":{}}"#,
        r#"{"predictions":[]}"#,
        r#"{"predictions":[{"a":{}}]}"#,
        r#"{"data":[]}"#,
        &floats("[2,2]", "[1.0,2.0,3.0]"),
        &floats("[0]", "[]"),
        &floats("[99999999999,99999999999]", "[1.0]"),
    ] {
        for kind in ["Classification", "Regression", "Embedding"] {
            check(&by(kind, ""), &[(body, body, Unclear)]);
        }
    }
}

#[test]
fn a_tolerance_that_is_no_number_is_refused() {
    for text in [
        r#"{"kind":"Exact","tolerance":-1}"#,
        r#"{"kind":"Exact","color":1}"#,
        r#"{"kind":"Same"}"#,
    ] {
        assert!(serde_json::from_str::<Compare>(text).is_err(), "{text}");
    }
    let nan: Result<Compare, _> = serde_saphyr::from_str("{kind: Exact, tolerance: .nan}");
    assert!(
        nan.unwrap_err()
            .to_string()
            .contains("a tolerance is a number")
    );
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<f64>().prop_map(|n| serde_json::json!(n)),
        (0_u64..5).prop_map(|n| serde_json::json!(n)),
        "[a-z0-9:.]{0,6}".prop_map(|text| serde_json::json!(text)),
        Just(serde_json::Value::Null),
    ];
    let keys = prop::sample::select(vec![
        "outputs",
        "predictions",
        "data",
        "shape",
        "datatype",
        "name",
        "embedding",
        "label",
        "index",
        "probability",
        "embeddings",
    ]);
    let value = leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::vec((keys.clone(), inner), 0..4).prop_map(|pairs| {
                pairs
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()
            }),
        ]
    });
    value.prop_map(|value| value.to_string())
}

proptest! {
    #[test]
    fn every_answer_agrees_with_itself_or_is_unclear(body in json(), place in 0_usize..4) {
        let kind = ["Classification", "Regression", "Embedding", "Exact"][place];
        prop_assert_ne!(by(kind, "").pair(body.as_bytes(), body.as_bytes()), Differ);
    }

    #[test]
    fn what_is_unclear_depends_on_the_users_answer_alone(users in json(), other in json(), place in 0_usize..4) {
        let compare = by(["Classification", "Regression", "Embedding", "Exact"][place], "");
        let is_unclear = |other: &str| compare.pair(users.as_bytes(), other.as_bytes()) == Unclear;
        prop_assert_eq!(is_unclear(&other), is_unclear(&users));
    }
}
