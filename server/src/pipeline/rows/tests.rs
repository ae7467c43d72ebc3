use ortolan_model::Column as Named;

use super::*;
use crate::signature::written::signature;

fn columns(names: &[&str]) -> RowsInput {
    let column = |name: &&str| Named {
        name: (*name).to_owned(),
        missing: None,
    };
    RowsInput {
        columns: names.iter().map(column).collect(),
        missing: None,
    }
}

fn one_input(names: &[&str]) -> Rows {
    let width = if names.is_empty() { 2 } else { names.len() };
    let signature = signature(&[("X", DataType::Fp32, &[-1, width as i64])], &[]);
    Rows::prepare(&columns(names), &signature).unwrap()
}

/// A number and a category, each an input of its own.
fn two_inputs() -> Rows {
    let signature = signature(
        &[
            ("age", DataType::Fp32, &[-1, 1]),
            ("town", DataType::Bytes, &[-1, 1]),
        ],
        &[],
    );
    Rows::prepare(&columns(&[]), &signature).unwrap()
}

fn json(rows: &Rows, text: &str) -> Result<(Vec<Feed>, bool), String> {
    let raw: &RawValue = serde_json::from_str(text).unwrap();
    rows.json(raw).map_err(|error| error.to_string())
}

fn tensors(feeds: &[Feed]) -> Vec<(Vec<i64>, Elements)> {
    let inputs = feeds.iter().flat_map(|feed| &feed.inputs);
    inputs
        .map(|tensor| (tensor.shape.clone(), tensor.elements.clone()))
        .collect()
}

#[test]
fn arrays_objects_and_csv_give_the_same_tensor() {
    let rows = one_input(&["a", "b"]);
    let expected = vec![(vec![2, 2], Elements::Fp32(vec![1.0, 2.5, -3.0, 4e3]))];
    for text in [
        "[[1, 2.5], [-3, 4e3]]",
        r#"[{"b": 2.5, "a": 1}, {"a": -3, "b": 4e3}]"#,
        r#"[[1, 2.5], {"\u0061": -3, "b": 4000}]"#,
    ] {
        let (feeds, is_list) = json(&rows, text).unwrap();
        assert!(is_list, "{text}");
        assert_eq!(tensors(&feeds), expected, "{text}");
    }
    let csv = |text: &str, header| tensors(&rows.csv(text.as_bytes(), header).unwrap());
    assert_eq!(csv("b,a\r\n2.5,1\r\n4e3, -3\r\n", true), expected);
    assert_eq!(csv("\u{feff}\"a\",b\n1,2.5\n-3,\"4000\"", true), expected);
    assert_eq!(csv("1,2.5\n-3,4e3\n", false), expected);
}

#[test]
fn one_row_alone_is_no_list() {
    let rows = one_input(&["a", "b"]);
    for text in ["[1, 2]", r#"{"a": 1, "b": 2}"#] {
        let (feeds, is_list) = json(&rows, text).unwrap();
        assert!(!is_list, "{text}");
        assert_eq!(
            tensors(&feeds),
            [(vec![1, 2], Elements::Fp32(vec![1.0, 2.0]))]
        );
    }
}

#[test]
fn each_input_gets_its_columns_in_its_own_datatype() {
    let rows = two_inputs();
    let expected = vec![
        (vec![2, 1], Elements::Fp32(vec![41.0, f32::INFINITY])),
        (
            vec![2, 1],
            Elements::Bytes(vec!["Ulm".into(), "a\"b".into()]),
        ),
    ];
    let (feeds, _) = json(
        &rows,
        r#"[[41, "Ulm"], {"town": "a\"b", "age": "Infinity"}]"#,
    )
    .unwrap();
    assert_eq!(tensors(&feeds), expected);
    let feeds = rows
        .csv(b"town,age\nUlm,41\n\"a\"\"b\",inf\n", true)
        .unwrap();
    assert_eq!(tensors(&feeds), expected);
    let wide = signature(
        &[
            ("n", DataType::Int64, &[-1, 2]),
            ("flag", DataType::Bool, &[-1]),
        ],
        &[],
    );
    let rows = Rows::prepare(&columns(&["x", "y", "z"]), &wide).unwrap();
    let feeds = rows.csv(b"z,y,x\nTrue,2,1\nfalse,4,3\n", true).unwrap();
    assert_eq!(
        tensors(&feeds),
        [
            (vec![2, 2], Elements::Int64(vec![1, 2, 3, 4])),
            (vec![2], Elements::Bool(vec![true, false]))
        ]
    );
}

#[test]
fn a_missing_value_is_refused_unless_model_yaml_says_what_the_model_takes() {
    for text in ["[[1, null]]", r#"[{"a": 1}]"#] {
        let sentence = json(&one_input(&["a", "b"]), text).unwrap_err();
        assert!(
            sentence.starts_with("row 0, column \"b\": the value is missing"),
            "{sentence}"
        );
    }
    let mut input = columns(&["age", "town"]);
    input.missing = Some(Missing::Number(f64::NAN));
    input.columns[1].missing = Some(Missing::Text("none".into()));
    let two = signature(
        &[
            ("age", DataType::Fp32, &[-1, 1]),
            ("town", DataType::Bytes, &[-1, 1]),
        ],
        &[],
    );
    let rows = Rows::prepare(&input, &two).unwrap();
    let feeds = rows.csv(b"age,town\n,\n3,\n", true).unwrap();
    let both = tensors(&feeds);
    let Elements::Fp32(ages) = &both[0].1 else {
        panic!("no floats")
    };
    assert!(ages[0].is_nan() && ages[1] == 3.0);
    assert_eq!(both[1].1, Elements::Bytes(vec!["none".into(); 2]));
    // As text, as JSON has to write it: a number in a column of numbers, itself in a column of strings.
    input.missing = Some(Missing::Text("NaN".into()));
    input.columns[1].missing = None;
    let rows = Rows::prepare(&input, &two).unwrap();
    let both = tensors(&rows.csv(b"age,town\n,\n", true).unwrap());
    let Elements::Fp32(ages) = &both[0].1 else {
        panic!("no floats")
    };
    assert!(ages[0].is_nan());
    assert_eq!(both[1].1, Elements::Bytes(vec!["NaN".into()]));
    input.columns[0].missing = Some(Missing::Text("x".into()));
    let sentence = Rows::prepare(&input, &two).err().unwrap();
    assert!(
        sentence.contains("the column \"age\" is FP32"),
        "{sentence}"
    );
}

#[test]
fn each_wrong_row_has_a_sentence_of_its_own() {
    let rows = one_input(&["a", "b"]);
    let cases = [
        (
            "[[1, 2, 3]]",
            "row 0 has 3 values, and the model takes 2: \"a\", \"b\"",
        ),
        ("[[1, 2], [1]]", "row 1 has 1 values"),
        (
            r#"[{"a": 1, "c": 2}]"#,
            "row 0 has the column \"c\"; the columns are \"a\", \"b\"",
        ),
        (r#"[{"a": 1, "a": 2}]"#, "row 0 has the column \"a\" twice"),
        (
            r#"[[1, "x"]]"#,
            "row 0, column \"b\": the value is \"x\", expected a number",
        ),
        (
            "[[1, [2]]]",
            "row 0, column \"b\": the value is [2], expected one FP32",
        ),
        ("[[1, {}]]", "row 0, column \"b\": the value is an object"),
        ("[[1, true]]", "the value is true"),
        ("[[1, 1e99]]", "the value is 1e99"),
        ("[[1, 2], 3]", "holds no rows"),
        ("3", "holds no rows"),
        ("\"x\"", "holds no rows"),
    ];
    for (text, part) in cases {
        let sentence = json(&rows, text).unwrap_err();
        assert!(sentence.contains(part), "{text}: {sentence}");
    }
    let cases: [(&[u8], bool, &str); 8] = [
        (b"", true, "the body is empty"),
        (b"a,b\n", true, "no rows"),
        (b"", false, "no rows"),
        (b"a,c\n1,2\n", true, "the first line has the column \"c\""),
        (b"a,a\n1,2\n", true, "\"a\" twice"),
        (
            b"a,b\n1\n",
            true,
            "row 0 has 1 values, and the first line names 2",
        ),
        (
            b"a,b\n1,\"2,3\"\n",
            true,
            "row 0, column \"b\": the value is 2,3, expected one FP32",
        ),
        (b"a,b\n1,\xff\n", true, "not CSV"),
    ];
    for (body, header, part) in cases {
        let sentence = rows.csv(body, header).unwrap_err().to_string();
        assert!(sentence.contains(part), "{body:?}: {sentence}");
    }
    let unnamed = json(&one_input(&[]), r#"[{"a": 1}]"#).unwrap_err();
    assert!(unnamed.contains("the columns have no names"), "{unnamed}");
}

#[test]
fn columns_that_do_not_fit_the_model_are_refused_at_load() {
    type Inputs<'a> = &'a [(&'a str, DataType, &'a [i64])];
    let cases: [(Inputs<'_>, &[&str], &str); 3] = [
        (
            &[("X", DataType::Fp32, &[-1, 4])],
            &["a"],
            "names 1 columns, and the model takes 4",
        ),
        (&[("X", DataType::Fp32, &[-1, 3, 4])], &[], "has [-1,3,4]"),
        (&[("X", DataType::Fp32, &[-1, -1])], &[], "name the columns"),
    ];
    for (inputs, names, part) in cases {
        let sentence = Rows::prepare(&columns(names), &signature(inputs, &[]))
            .err()
            .unwrap();
        assert!(sentence.contains(part), "{sentence}");
    }
    let free = signature(&[("X", DataType::Fp32, &[-1, -1])], &[]);
    assert!(Rows::prepare(&columns(&["a", "b"]), &free).is_ok());
}

#[test]
fn a_model_of_one_row_runs_once_for_each() {
    let fixed = signature(&[("X", DataType::Fp32, &[1, 2])], &[]);
    let rows = Rows::prepare(&columns(&[]), &fixed).unwrap();
    let (feeds, _) = json(&rows, "[[1, 2], [3, 4]]").unwrap();
    assert_eq!(
        tensors(&feeds),
        [
            (vec![1, 2], Elements::Fp32(vec![1.0, 2.0])),
            (vec![1, 2], Elements::Fp32(vec![3.0, 4.0]))
        ]
    );
    let items: Vec<_> = feeds.iter().map(|feed| feed.items.clone()).collect();
    assert_eq!(items, [[0], [1]]);
}
