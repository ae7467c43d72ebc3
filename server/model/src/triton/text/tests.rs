use proptest::prelude::*;

use super::*;

/// One line for each field, nested ones in braces.
fn shown(message: &Message) -> String {
    let fields = message.fields.iter().map(|field| match &field.value {
        Value::Message(inner) => format!("{}{{{}}}", field.name, shown(inner)),
        Value::Text(text) => format!("{}={text:?}", field.name),
        Value::Word(word) | Value::Number(word) => format!("{}={word}", field.name),
    });
    fields.collect::<Vec<_>>().join(" ")
}

fn read(text: &str) -> String {
    shown(&parse(text).unwrap())
}

#[test]
fn every_way_to_write_a_field_gives_the_same_tree() {
    let cases = [
        ("", ""),
        ("# only a comment", ""),
        ("a: 1", "a=1"),
        ("a:1,b:2;c:3 d:4", "a=1 b=2 c=3 d=4"),
        ("a { b: 1 }", "a{b=1}"),
        ("a: { b: 1 }", "a{b=1}"),
        ("a: < b: 1 >", "a{b=1}"),
        ("a [ { b: 1 }, { b: 2 } ]", "a{b=1} a{b=2}"),
        ("a: [ < b: 1 >, { } ]", "a{b=1} a{}"),
        ("a: [1, 2,\n 3]", "a=1 a=2 a=3"),
        ("a: []", ""),
        ("a: [ ] b: 1", "b=1"),
        ("a: KIND_CPU b: true", "a=KIND_CPU b=true"),
        ("a: - 1 b: -inf", "a=-1 b=-inf"),
        (
            "a: 0x1F b: 017 c: 1.5e-3 d: .5f e: 2.",
            "a=0x1F b=017 c=1.5e-3 d=.5f e=2.",
        ),
        ("a: 'x' \"y\"\n  # between\n 'z'", "a=\"xyz\""),
        ("[some.ext/name]: 1", "[some.ext/name]=1"),
        (
            "parameters: { key: \"k\" value: { string_value: \"v\" } }",
            "parameters{key=\"k\" value{string_value=\"v\"}}",
        ),
        ("\u{feff}a: 1\r\n", "a=1"),
    ];
    for (text, tree) in cases {
        assert_eq!(read(text), tree, "{text:?}");
    }
}

#[test]
fn escapes_are_those_of_c() {
    let text = r#"a: "\n\t\\\"\'\?\x41\101\u00e9\U0001F600\0""#;
    let message = parse(text).unwrap();
    assert_eq!(
        message.fields[0].value,
        Value::Text("\n\t\\\"'?AAé😀\0".to_owned())
    );
}

#[test]
fn each_field_knows_its_line() {
    let message = parse("a: 1\n\n# x\nb {\n  c: 2\n}\n").unwrap();
    let Value::Message(inner) = &message.fields[1].value else {
        panic!("b is a message")
    };
    assert_eq!((message.fields[1].line, inner.fields[0].line), (4, 5));
}

#[test]
fn what_is_no_text_format_is_refused_with_its_place() {
    let cases = [
        (
            "a",
            "line 1, column 2: expected a colon or {, found the end",
        ),
        ("a: ", "expected a value"),
        ("a 1", "line 1, column 3: expected a colon or {, found '1'"),
        (
            "a {\n b: 1\n",
            "the text ends before the '}' that closes line 1",
        ),
        ("a: [1 2]", "expected a comma or ]"),
        ("a: [1, ]", "expected a value"),
        ("a: \"x", "expected \" at a string's end"),
        ("a: \"x\ny\"", "expected \" at a string's end"),
        ("a: \"\\q\"", "\\q is no escape"),
        ("a: \"\\777\"", "above \\377"),
        ("a: \"\\uD800\"", "4 hexadecimal digits"),
        ("a: \"\\xff\"", "not UTF-8"),
        ("a: 09", "\"09\" is no number"),
        ("a: 1x", "\"1x\" is no number"),
        ("a: 0x", "\"0x\" is no number"),
        ("}", "expected a field's name, found '}'"),
        ("{}", "expected a field's name"),
        ("1: 2", "expected a field's name"),
        ("[a", "expected an extension's name"),
    ];
    for (text, words) in cases {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text:?}: {error}");
    }
    let deep = "a{".repeat(100_000);
    assert!(
        parse(&deep)
            .unwrap_err()
            .to_string()
            .contains("inside each other")
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,80}", likely in "[a{}<>\\[\\]:,;\"'\\\\x0-9.#\n -]{0,80}") {
        let _ = parse(&text);
        let _ = parse(&likely);
    }

    #[test]
    fn any_string_reads_back_from_its_escapes(value in "\\PC{0,40}") {
        let escaped: String = value.bytes().map(|b| format!("\\{b:03o}")).collect();
        let message = parse(&format!("a: \"{escaped}\"")).unwrap();
        prop_assert_eq!(&message.fields[0].value, &Value::Text(value));
    }
}
