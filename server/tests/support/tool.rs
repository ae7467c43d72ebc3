//! Runs the binary as a tool.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

pub fn tool(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ortolan-server"))
        .args(words)
        .output()
        .unwrap()
}

/// What a tool says on stdout; it must end well.
pub fn said(words: &[&str]) -> String {
    let output = tool(words);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn told(words: &[&str]) -> Value {
    serde_json::from_str(&said(words)).unwrap()
}

/// A tool that refuses: its code and its one line.
pub fn refused(words: &[&str]) -> (i32, String) {
    let output = tool(words);
    assert!(output.stdout.is_empty(), "{words:?}");
    let line = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), line)
}

pub fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}
