//! kubectl and helm, as a person would type them.

use std::{ffi::OsStr, process::Stdio};

use tokio::process::Command;

use crate::{Failure, Result};

/// Runs a program of the `PATH` and returns what it prints.
pub(crate) async fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    let shown: Vec<_> = arguments
        .iter()
        .map(|a| a.as_ref().to_string_lossy())
        .collect();
    let line = format!("{program} {}", shown.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| Failure::Spawn(line.clone(), error))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(Failure::Command {
        line,
        status: output.status.to_string(),
        output: text(&output.stdout) + &text(&output.stderr),
    })
}

/// `kubectl ARGUMENTS`.
///
/// # Errors
/// When it fails; its output is in the error.
pub async fn kubectl(arguments: &[&str]) -> Result<String> {
    run("kubectl", arguments).await
}

/// `kubectl -n NAMESPACE ARGUMENTS`.
///
/// # Errors
/// When it fails; its output is in the error.
pub async fn kubectl_in(namespace: &str, arguments: &[&str]) -> Result<String> {
    let mut all = vec!["-n", namespace];
    all.extend(arguments);
    kubectl(&all).await
}

/// `helm ARGUMENTS`.
///
/// # Errors
/// When it fails; its output is in the error.
pub async fn helm(arguments: &[&str]) -> Result<String> {
    run("helm", arguments).await
}

/// The options that make the chart use this run's images.
#[must_use]
pub fn helm_values() -> Vec<String> {
    let (prefix, tag) = images();
    let (registry, path) = prefix.split_once('/').unwrap_or(("", &prefix));
    let mut values = Vec::new();
    for value in [
        format!("images.registry={registry}"),
        format!("images.tag={tag}"),
        format!("images.operator={path}/operator"),
        format!("images.router={path}/router"),
        format!("images.server.cpu={path}/server"),
        // A run has few services, and a node has few cores.
        "resources.requests.cpu=20m".into(),
        "router.resources.requests.cpu=20m".into(),
    ] {
        values.extend(["--set".into(), value]);
    }
    values
}

/// Prefix and tag of the images.
pub(crate) fn images() -> (String, String) {
    let or = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    (
        or("ORTOLAN_IMAGE_PREFIX", "localhost/ortolan"),
        or("ORTOLAN_IMAGE_TAG", "dev"),
    )
}

/// An image of this run.
#[must_use]
pub fn image(name: &str) -> String {
    let (prefix, tag) = images();
    format!("{prefix}/{name}:{tag}")
}

/// A file of the repository.
pub(crate) fn file(path: &str) -> String {
    format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))
}

/// The path of a file of `examples/`.
#[must_use]
pub fn example(name: &str) -> String {
    file(&format!("examples/{name}"))
}
