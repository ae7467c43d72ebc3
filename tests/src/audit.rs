//! What the API server was asked, from its audit log.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::PathBuf,
};

use serde_json::Value;

/// One request that was answered, or a watch that began.
#[derive(Clone, Debug)]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `patch`, ….
    pub verb: String,
    /// What was asked for.
    pub uri: String,
    /// The resource's plural, such as `leases`.
    pub resource: String,
    /// The namespace, when there is one.
    pub namespace: String,
    /// The status code.
    pub code: i64,
}

impl Request {
    /// Whether it renews a watch or the Lease, which an idle operator goes on doing.
    #[must_use]
    pub fn is_upkeep(&self) -> bool {
        self.verb == "watch" || self.resource == "leases"
    }
}

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

fn path() -> PathBuf {
    let run = std::env::var("ORTOLAN_TEST_APISERVER_RUN").expect(
        "ORTOLAN_TEST_APISERVER_RUN names the API server's folder: start the tests by tests/run",
    );
    PathBuf::from(run).join("logs/audit.log")
}

/// The log's end.
#[must_use]
pub fn mark() -> Mark {
    let path = path();
    let meta = std::fs::metadata(&path);
    Mark(
        meta.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .len(),
    )
}

/// Requests since the mark by clients whose user agent begins with `agent`, one entry each.
#[must_use]
pub fn since(mark: Mark, agent: &str) -> Vec<Request> {
    let mut file = File::open(path()).expect("the audit log can be read");
    file.seek(SeekFrom::Start(mark.0))
        .expect("the audit log only grows");
    BufReader::new(file)
        .lines()
        .map_while(Result::ok)
        .filter(|line| line.contains(agent))
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .filter(|event| text(event, "/userAgent").starts_with(agent))
        // A watch leaves two lines, when it begins and when it ends.
        .filter(|event| event["verb"] != "watch" || event["stage"] == "ResponseStarted")
        .map(|event| Request {
            verb: text(&event, "/verb"),
            uri: text(&event, "/requestURI"),
            resource: text(&event, "/objectRef/resource"),
            namespace: text(&event, "/objectRef/namespace"),
            code: event
                .pointer("/responseStatus/code")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
        })
        .collect()
}

fn text(event: &Value, pointer: &str) -> String {
    let found = event.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}
