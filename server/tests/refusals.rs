//! What cannot be served: the documented exit code, and one clear line in the termination log.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use prost::Message;
use support::{fails, fails_at, onnx, written};

fn assert_ends(bytes: &[u8], options: &[&str], code: i32, parts: &[&str]) {
    let ended = fails(bytes, options);
    assert_eq!(ended.code, code, "{}", ended.stderr);
    assert_eq!(
        ended.termination_log.lines().count(),
        1,
        "{:?}",
        ended.termination_log
    );
    assert!(
        ended.stderr.contains(&ended.termination_log),
        "the log has the same line: {}",
        ended.stderr
    );
    for part in parts {
        assert!(
            ended.termination_log.contains(part),
            "no {part:?} in {}",
            ended.termination_log
        );
    }
}

#[test]
fn a_truncated_model_is_called_truncated() {
    let whole = onnx::slow(64, 2).encode_to_vec();
    assert_ends(
        &whole[..whole.len() / 2],
        &[],
        15,
        &["InvalidModel: ", "model.onnx", "truncated"],
    );
}

#[test]
fn a_web_page_is_called_a_web_page() {
    let page = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>";
    assert_ends(page, &[], 15, &["InvalidModel: ", "HTML page"]);
}

#[test]
fn random_bytes_are_no_model() {
    let noise: Vec<u8> = (0..4096_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    assert_ends(&noise, &[], 15, &["InvalidModel: ", "model.onnx"]);
}

#[test]
fn an_opset_from_the_future_is_named_with_the_newest_known() {
    let mut model = onnx::identity(onnx::FLOAT, &[2]);
    model.opsets[0].version = 99;
    assert_ends(
        &model.encode_to_vec(),
        &[],
        15,
        &[
            "InvalidModel: ",
            "operator set 99",
            "1.31",
            "opset_version=",
        ],
    );
}

#[test]
fn a_custom_operator_is_named() {
    let model = onnx::custom_operator().encode_to_vec();
    assert_ends(
        &model,
        &[],
        15,
        &["InvalidModel: ", "custom operator acme.ops.Fancy"],
    );
}

#[test]
fn a_sequence_output_is_refused_with_what_to_do() {
    let model = onnx::sequence_output().encode_to_vec();
    assert_ends(
        &model,
        &[],
        15,
        &["InvalidModel: ", "\"y\" is a sequence", "zipmap"],
    );
}

#[test]
fn a_first_run_that_fails_is_no_ready_server() {
    assert_ends(
        &onnx::gather(5).encode_to_vec(),
        &[],
        21,
        &["WarmUpFailed: ", "[1]", "Gather"],
    );
}

#[test]
fn a_provider_that_does_not_load_is_no_reason_to_serve_slowly() {
    let model = onnx::identity(onnx::FLOAT, &[2]).encode_to_vec();
    assert_ends(
        &model,
        &["--provider", "CUDA"],
        16,
        &["ProviderUnavailable: ", "CUDA", "--fallback allow"],
    );
    assert_ends(
        &model,
        &["--provider", "xnnpack"],
        16,
        &[
            "ProviderUnavailable: ",
            "XNNPACK",
            "built without it (it has CPU)",
        ],
    );
}

#[test]
fn a_runtime_that_is_not_there_is_said() {
    let model = onnx::identity(onnx::FLOAT, &[2]).encode_to_vec();
    let options = ["--onnxruntime", "/nowhere/libonnxruntime.so"];
    assert_ends(
        &model,
        &options,
        19,
        &["RuntimeMissing: ", "/nowhere/libonnxruntime.so", "1.31"],
    );
}

#[test]
fn a_runtime_that_is_another_library_is_said() {
    let model = onnx::identity(onnx::FLOAT, &[2]).encode_to_vec();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("libonnxruntime.so");
    std::fs::write(&path, "no library").unwrap();
    let options = ["--onnxruntime", path.to_str().unwrap()];
    assert_ends(
        &model,
        &options,
        19,
        &["RuntimeMissing: ", "libonnxruntime.so"],
    );
}

#[test]
fn wrong_names_and_digests_are_configuration() {
    let model = onnx::identity(onnx::FLOAT, &[2]).encode_to_vec();
    assert_ends(
        &model,
        &["--name", "My Model"],
        20,
        &["InvalidConfig: ", "\"My Model\""],
    );
    assert_ends(
        &model,
        &["--digest", "sha256:12"],
        20,
        &["InvalidConfig: ", "sha256:12"],
    );
}

#[test]
fn another_digest_than_expected_names_both() {
    let model = onnx::identity(onnx::FLOAT, &[2]).encode_to_vec();
    let expected = format!("sha256:{}", "ab".repeat(32));
    assert_ends(
        &model,
        &["--digest", &expected],
        13,
        &["DigestMismatch: ", &expected],
    );
}

#[test]
fn a_recorded_digest_is_checked_and_an_empty_record_is_none() {
    let model = onnx::identity(onnx::FLOAT, &[2]).encode_to_vec();
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("digest");
    let other = format!("sha256:{}", "cd".repeat(32));
    std::fs::write(&record, format!("{other}\n")).unwrap();
    let options = ["--recorded-digest-file", record.to_str().unwrap()];
    assert_ends(&model, &options, 13, &["DigestMismatch: ", &other]);
    // With an empty record the start gets further: as far as the library that is not there.
    std::fs::write(&record, "").unwrap();
    let options = [&options[..], &["--onnxruntime", "/nowhere.so"]].concat();
    assert_ends(&model, &options, 19, &["RuntimeMissing: "]);
}

#[test]
fn a_model_that_is_not_there_and_a_scheme_that_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.onnx");
    let ended = fails_at(dir, &missing, &[]);
    assert_eq!(ended.code, 11, "{}", ended.stderr);
    assert!(
        ended.termination_log.starts_with("ModelNotFound: "),
        "{}",
        ended.termination_log
    );
    let dir = tempfile::tempdir().unwrap();
    let ended = fails_at(dir, std::path::Path::new("ftp://host/m.onnx"), &[]);
    assert_eq!(ended.code, 22, "{}", ended.stderr);
    assert!(
        ended.termination_log.contains("ftp"),
        "{}",
        ended.termination_log
    );
}

#[test]
fn a_port_in_use_is_said_before_anything_is_fetched() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (dir, path) = written(&onnx::identity(onnx::FLOAT, &[2]));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ortolan-server"));
    let log = dir.path().join("termination");
    let output = command
        .arg(&path)
        .args([
            "--http",
            &address,
            "--termination-log",
            log.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(23));
    let line = std::fs::read_to_string(&log).unwrap();
    assert!(
        line.starts_with("PortInUse: ") && line.contains(&address),
        "{line}"
    );
}

#[test]
fn wrong_flags_are_the_command_lines_own_error() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("termination");
    let run = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_ortolan-server"))
            .args(arguments)
            .env("ORTOLAN_TERMINATION_LOG", &log)
            .output()
            .unwrap()
    };
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(!log.exists(), "help is no failure");
    let output = run(&["m.onnx", "--sessions", "many"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("write auto"));
    let line = std::fs::read_to_string(&log).unwrap();
    assert!(
        line.starts_with("Usage: ") && line.contains("write auto"),
        "{line}"
    );
    assert_eq!(run(&["m.onnx", "--no-such-option"]).status.code(), Some(2));
    let line = std::fs::read_to_string(&log).unwrap();
    assert!(line.contains("--no-such-option"), "{line}");
}
