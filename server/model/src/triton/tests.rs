use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::settings::{
    Accelerator, Batching, Device, Mode, Optimization, Overdue, Priorities, WarmUp,
};

fn read(text: &str) -> Config {
    parse("m/config.pbtxt", text).unwrap()
}

fn refused(text: &str) -> String {
    let failure = parse("m/config.pbtxt", text).unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidConfig);
    assert!(failure.message.starts_with("m/config.pbtxt: "), "{failure}");
    failure.message
}

/// As Triton's own documentation and its users write it.
const WHOLE: &str = r#"
name: "densenet_onnx"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size : 8
default_model_filename: "net.onnx"
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 224, -1 ]
  }
]
output: [ { name: "fc6_1" data_type: TYPE_FP32 dims: [ 1000 ] label_filename: "labels.txt" } ]
version_policy: { latest { num_versions: 2 } }
instance_group [ { count: 2 kind: KIND_CPU }, { count: 1, kind: KIND_CPU name: "second" } ]
dynamic_batching {
  preferred_batch_size: [ 8, 4, 4 ]
  max_queue_delay_microseconds: 1500
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy {
    timeout_action: DELAY
    default_timeout_microseconds: 2000000
    allow_timeout_override: true
    max_queue_size: 32
  }
}
optimization {
  graph : { level : 1 }
  execution_accelerators { cpu_execution_accelerator : [ { name : "openvino" } ] }
}
parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
model_warmup [ {
  name: "two rows"
  batch_size: 2
  inputs { key: "data_0" value: { data_type: TYPE_FP32 dims: [3, 224, 224] zero_data: true } }
} ]
response_cache { enable: true }
"#;

#[test]
fn everything_that_is_acted_on_is_read() {
    let config = read(WHOLE);
    assert_eq!(config.name.as_deref(), Some("densenet_onnx"));
    assert_eq!(config.model_filename.as_deref(), Some("net.onnx"));
    assert_eq!(config.versions, VersionPolicy::Latest(2));
    assert_eq!(config.notes, [""; 0]);
    assert_eq!(
        config.label_files,
        BTreeMap::from([("fc6_1".to_owned(), "labels.txt".to_owned())])
    );
    let declared = |name: &str, shape: &[i64]| Declared {
        name: name.to_owned(),
        datatype: Some("FP32"),
        shape: Some(shape.to_vec()),
    };
    let expected = Settings {
        batching: Batching {
            mode: Some(Mode::Together),
            max: Some(8),
            preferred: vec![4, 8],
            max_delay: Some(Duration::from_micros(1500)),
        },
        queue: Some(32),
        timeout: Some(Duration::from_secs(2)),
        overdue: Overdue::Delay,
        allow_shorter_timeout: Some(true),
        priorities: Some(Priorities {
            levels: 3,
            default: 2,
        }),
        sessions: Some(3),
        threads: Some(2),
        device: Device::Cpu,
        gpu_accelerator: None,
        cpu_accelerator: Some(Accelerator::OpenVino),
        optimization: Optimization::Extended,
        cache: Some(true),
        warm_up: vec![WarmUp {
            name: "two rows".to_owned(),
            shapes: BTreeMap::from([("data_0".to_owned(), vec![2, 3, 224, 224])]),
        }],
        inputs: vec![declared("data_0", &[-1, 3, 224, -1])],
        outputs: vec![declared("fc6_1", &[-1, 1000])],
        labels: BTreeMap::new(),
    };
    assert_eq!(config.settings, expected);
}

#[test]
fn an_empty_file_leaves_everything_to_the_server() {
    assert_eq!(read("# nothing\n"), Config::default());
}

#[test]
fn the_batch_size_and_dynamic_batching_explain_each_other() {
    let cases = [
        ("", None, None),
        ("max_batch_size: 0", Some(Mode::Alone), None),
        ("max_batch_size: 4", Some(Mode::Alone), Some(4)),
        (
            "max_batch_size: 4 dynamic_batching {}",
            Some(Mode::Together),
            Some(4),
        ),
        ("dynamic_batching { }", Some(Mode::Together), None),
        (
            "max_batch_size: 0 dynamic_batching { }",
            Some(Mode::Alone),
            None,
        ),
    ];
    for (text, mode, max) in cases {
        let batching = read(text).settings.batching;
        assert_eq!((batching.mode, batching.max), (mode, max), "{text}");
    }
}

#[test]
fn shapes_have_the_batch_dimension_only_where_the_batch_size_says_so() {
    let text = "input { name: \"x\" dims: [ 2 ] }";
    let shape = |text: &str| read(text).settings.inputs[0].shape.clone();
    assert_eq!(shape(text), Some(vec![2]));
    assert_eq!(shape(&format!("{text} max_batch_size: 0")), Some(vec![2]));
    assert_eq!(
        shape(&format!("{text} max_batch_size: 3")),
        Some(vec![-1, 2])
    );
    assert_eq!(shape("input { name: \"x\" dims: [ ] }"), None);
}

#[test]
fn versions_are_chosen_by_their_policy() {
    let versions = BTreeSet::from([1, 2, 3, 10]);
    let cases: [(&str, &[u64]); 6] = [
        ("", &[10]),
        ("version_policy { latest { } }", &[10]),
        (
            "version_policy: { latest: { num_versions: 3 } }",
            &[2, 3, 10],
        ),
        ("version_policy { all {} }", &[1, 2, 3, 10]),
        (
            "version_policy { specific { versions: [1, 3, 7] } }",
            &[1, 3],
        ),
        ("version_policy { }", &[10]),
    ];
    for (text, chosen) in cases {
        let chosen: BTreeSet<u64> = chosen.iter().copied().collect();
        assert_eq!(read(text).versions.choose(&versions), chosen, "{text}");
    }
    assert!(refused("version_policy { all {} latest {} }").contains("more than one policy"));
    assert!(refused("version_policy { latest { num_versions: 0 } }").contains("num_versions is 0"));
}

#[test]
fn what_is_not_acted_on_is_noted_by_its_path_and_line() {
    let text = "metric_tags { key: \"a\" value: \"b\" }\n\
                dynamic_batching { preserve_ordering: true }\n\
                optimization { cuda { graphs: true } priority: PRIORITY_MAX }\n\
                parameters { key: \"execution_mode\" value: { string_value: \"1\" } }\n\
                instance_group { gpus: [ 0, 1 ] kind: KIND_GPU }\n\
                brand_new { field: 1 }\n\
                input { name: \"x\" allow_ragged_batch: true colour: RED }\n\
                optimization_2: 1";
    let notes = read(text).notes.join("\n");
    for words in [
        "metric_tags (line 1) is not used here",
        "dynamic_batching.preserve_ordering (line 2) is not used here",
        "optimization.cuda (line 3) is not used here",
        "optimization.priority (line 3) is not used here",
        "parameters (line 4) with the key \"execution_mode\" is not used here",
        "instance_group.gpus (line 5) is not used here",
        "brand_new (line 6) is not known",
        "input.allow_ragged_batch (line 7) is not used here",
        "input.colour (line 7) is not known",
        "optimization_2 (line 8) is not known",
    ] {
        assert!(notes.contains(words), "no {words:?} in:\n{notes}");
    }
}

#[test]
fn what_would_change_the_answers_is_refused_with_what_to_do() {
    let cases = [
        ("platform: \"ensemble\"", "an ensemble of several models"),
        (
            "ensemble_scheduling { step [ { model_name: \"a\" } ] }",
            "an ensemble of several models",
        ),
        ("sequence_batching { }", "keeps state between requests"),
        (
            "batch_input { kind: BATCH_ELEMENT_COUNT }",
            "inputs that the server would have to make",
        ),
        ("batch_output { }", "splits outputs"),
        (
            "model_transaction_policy { decoupled: true }",
            "one answer to a request",
        ),
        (
            "input { name: \"x\" reshape { shape: [ ] } }",
            "put a Reshape into the graph",
        ),
        (
            "platform: \"tensorrt_plan\"",
            "only ONNX models are served here",
        ),
        ("backend: \"python\"", "write backend: \"onnxruntime\""),
    ];
    for (text, words) in cases {
        let sentence = refused(text);
        assert!(sentence.contains(words), "{text}: {sentence}");
        assert!(sentence.contains("line 1"), "{sentence}");
    }
    assert_eq!(
        read("model_transaction_policy { decoupled: false }").notes,
        [""; 0]
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_line_and_what_to_write() {
    let cases = [
        (
            "max_batch_size: -1",
            "max_batch_size is -1, expected a whole number, 0 to",
        ),
        (
            "max_batch_size: \"8\"",
            "is the text \"8\", expected a whole number",
        ),
        (
            "max_batch_size: 1 max_batch_size: 2",
            "twice, in the lines 1 and 1",
        ),
        (
            "name: densenet",
            "name is densenet, expected a text in quotes",
        ),
        ("dynamic_batching: 1", "expected a message in braces"),
        (
            "input { name: \"x\" data_type: FP32 }",
            "is FP32, expected one of TYPE_BOOL",
        ),
        ("input { data_type: TYPE_FP32 }", "input has no name"),
        (
            "input { name: \"x\" } input { name: \"x\" }",
            "the input \"x\" is declared twice",
        ),
        (
            "response_cache { enable: yes }",
            "is yes, expected true or false",
        ),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }",
            "more than max_batch_size 4",
        ),
        (
            "dynamic_batching { priority_levels: 2 }",
            "no default_priority_level",
        ),
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
            "a whole number, 1 to 2",
        ),
        (
            "dynamic_batching { default_priority_level: 1 }",
            "needs priority_levels",
        ),
        ("optimization { graph { level: 3 } }", "level is 3"),
        (
            "parameters { key: \"intra_op_thread_count\" value { string_value: \"all\" } }",
            "is \"all\"",
        ),
        ("default_model_filename: \"../m.onnx\"", "without folders"),
        (
            "output { name: \"y\" label_filename: \"/etc/passwd\" }",
            "without folders",
        ),
        (
            "instance_group { kind: KIND_TPU }",
            "expected one of KIND_AUTO",
        ),
        ("max_batch_size", "line 1, column 15: expected a colon"),
    ];
    for (text, words) in cases {
        let sentence = refused(text);
        assert!(sentence.contains(words), "{text}: {sentence}");
    }
}

#[test]
fn numbers_and_enums_are_read_in_every_way_that_protobuf_writes_them() {
    assert_eq!(read("max_batch_size: 0x10").settings.batching.max, Some(16));
    assert_eq!(read("max_batch_size: 010").settings.batching.max, Some(8));
    assert_eq!(
        read("instance_group { kind: 2 }").settings.device,
        Device::Cpu
    );
    assert_eq!(
        read("input { name: 'x' data_type: 13 }").settings.inputs[0].datatype,
        Some("BYTES")
    );
    assert_eq!(
        read("response_cache { enable: 1 }").settings.cache,
        Some(true)
    );
}

#[test]
fn a_group_of_another_kind_and_a_passive_one_get_no_sessions() {
    let config = read(
        "instance_group [ { kind: KIND_GPU count: 2 }, { kind: KIND_CPU count: 4 }, \
         { kind: KIND_GPU passive: true count: 8 } ]",
    );
    assert_eq!(
        (config.settings.device, config.settings.sessions),
        (Device::Gpu, Some(2))
    );
    assert_eq!(config.notes.len(), 2, "{:?}", config.notes);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(
        text in "((name|input|output|dims|key|value|parameters|max_batch_size|dynamic_batching|model_warmup|inputs)|[ :{}\\[\\],\"0-9-]){0,40}"
    ) {
        let _ = parse("f", &text);
    }

    /// However a valid file is cut, it is read or refused with a sentence.
    #[test]
    fn a_cut_file_is_read_or_refused(end in 0..WHOLE.len()) {
        if let Err(failure) = parse("f", &WHOLE[..end]) {
            prop_assert!(failure.message.contains("f: "), "{}", failure);
        }
    }
}
