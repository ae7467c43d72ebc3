//! The report of `bench`, for people and as JSON. Times in JSON are seconds.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    load::{Loop, Plan},
    request::Requests,
    tally::Tally,
};
use crate::tool::text::{self, Align};

const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];
/// Above this share of a core the generator may be what is measured.
const BUSY: f64 = 0.85;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    target: String,
    requests: String,
    body_bytes: usize,
    load: String,
    /// Open loop only.
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted_rate: Option<f64>,
    connections: usize,
    warm_up_seconds: f64,
    seconds: f64,
    ended: u64,
    successes: u64,
    successes_per_second: f64,
    /// By how they ended.
    endings: BTreeMap<String, u64>,
    /// The first words of each kind of error.
    errors: BTreeMap<String, String>,
    latency: Latency,
    /// Open loop: how often and how long requests waited here for a free connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<Waiting>,
    answer_bytes_per_second: f64,
    /// Requests that had to open a connection first: the server had closed theirs.
    reconnects: u64,
    cpu: Cpu,
    /// What the reader must know to trust the figures.
    warnings: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Latency {
    /// due (open loop) or sent (closed loop)
    counted_from: &'static str,
    mean: f64,
    deviation: f64,
    least: f64,
    quantiles: BTreeMap<&'static str, f64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Waiting {
    waited: u64,
    longest_queue: usize,
    never_sent: u64,
    unfinished: u64,
    /// The 99th percentile of how late the generator itself was.
    late_p99: f64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    own_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    successes_per_server_second: Option<f64>,
}

impl Report {
    pub(super) fn new(
        plan: Plan,
        requests: &Requests,
        tally: &Tally,
        took: Duration,
        own: Duration,
        server: Option<Duration>,
    ) -> Self {
        let seconds = took.as_secs_f64().max(1e-9);
        let (load, connections, wanted_rate) = told(plan.by);
        let successes = tally.successes();
        let cpu = Cpu::of(own, server, successes);
        let waiting = wanted_rate.map(|_| Waiting {
            waited: tally.waited,
            longest_queue: tally.longest_wait,
            never_sent: tally.never_sent,
            unfinished: tally.unfinished,
            late_p99: nanos(tally.slip.value_at_quantile(0.99)),
        });
        let latency = Latency::of(tally, wanted_rate.is_some());
        Self {
            target: requests.line.clone(),
            requests: requests.words.clone(),
            body_bytes: requests.body_bytes,
            load,
            wanted_rate,
            connections,
            warm_up_seconds: plan.warm_up.as_secs_f64(),
            seconds,
            ended: tally.ended(),
            successes,
            successes_per_second: successes as f64 / seconds,
            endings: named(&tally.endings),
            errors: tally
                .words
                .iter()
                .map(|(ending, words)| (ending.to_string(), words.clone()))
                .collect(),
            warnings: warnings(tally, &cpu, seconds, waiting.as_ref(), &latency),
            latency,
            waiting,
            reconnects: tally.connected,
            answer_bytes_per_second: tally.received as f64 / seconds,
            cpu,
        }
    }
}

/// A loop in words, its connections, the rate of an open one.
fn told(by: Loop) -> (String, usize, Option<f64>) {
    match by {
        Loop::Open {
            pattern,
            rate,
            connections,
            ..
        } => (
            format!("open loop, {pattern:?} arrivals").to_lowercase(),
            connections,
            Some(rate),
        ),
        Loop::Closed { concurrency } => ("closed loop".to_owned(), concurrency, None),
    }
}

impl Cpu {
    fn of(own: Duration, server: Option<Duration>, successes: u64) -> Self {
        let server = server.map(|server| server.as_secs_f64());
        Self {
            own_seconds: own.as_secs_f64(),
            server_seconds: server,
            successes_per_server_second: server
                .filter(|server| *server > 0.0)
                .map(|server| successes as f64 / server),
        }
    }
}

fn named(endings: &BTreeMap<super::Ending, u64>) -> BTreeMap<String, u64> {
    let endings = endings.iter();
    endings
        .map(|(ending, count)| (ending.to_string(), *count))
        .collect()
}

impl Latency {
    fn of(tally: &Tally, open: bool) -> Self {
        let quantiles = QUANTILES
            .iter()
            .map(|(name, quantile)| (*name, nanos(tally.latency.value_at_quantile(*quantile))));
        Self {
            counted_from: if open { "due" } else { "sent" },
            mean: tally.latency.mean() / 1e9,
            deviation: tally.latency.stdev() / 1e9,
            least: nanos(tally.latency.min()),
            quantiles: quantiles.collect(),
        }
    }
}

fn nanos(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn warnings(
    tally: &Tally,
    cpu: &Cpu,
    seconds: f64,
    waiting: Option<&Waiting>,
    latency: &Latency,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let failed = tally.ended() - tally.successes();
    if failed > 0 {
        warnings.push(format!(
            "{} requests failed; the latencies are those of the others",
            text::count(failed)
        ));
    }
    if tally.connected > 0 {
        warnings.push(format!(
            "the server closed connections: {} requests had to open one, which is in their latency",
            text::count(tally.connected)
        ));
    }
    let busy = cpu.own_seconds / seconds;
    if busy > BUSY {
        warnings.push(format!(
            "bench itself was busy {:.0} % of the time: the server may answer more than it can send",
            busy * 100.0
        ));
    }
    if let Some(waiting) = waiting {
        let left = waiting.never_sent + waiting.unfinished;
        if left > 0 {
            warnings.push(format!(
                "{} more requests were due: {} never got a connection, {} were still without an answer at the end. The \
                 server cannot keep up, and the real latencies are higher",
                text::count(left),
                text::count(waiting.never_sent),
                text::count(waiting.unfinished)
            ));
        } else if waiting.waited > 0 {
            warnings.push(format!(
                "{} requests waited for one of the connections, at most {} at once; their wait is in the latencies",
                text::count(waiting.waited),
                text::count(waiting.longest_queue as u64)
            ));
        }
        let p50 = latency.quantiles["p50"];
        if waiting.late_p99 > 1e-3 && waiting.late_p99 > 0.1 * p50 {
            warnings.push(format!(
                "bench came to 1 % of the requests {} late or more, which is in their latency: it lacks CPU here",
                time(waiting.late_p99)
            ));
        }
    }
    warnings
}

fn time(seconds: f64) -> String {
    text::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// The report for people.
pub(super) fn text(report: &Report) -> String {
    let rate = match report.wanted_rate {
        Some(rate) => format!(", {}/s", text::three_digits(rate)),
        None => String::new(),
    };
    let errors: u64 = report.ended - report.successes;
    let mut lines = vec![
        format!("  target     {}", report.target),
        format!(
            "  requests   {}, {} each",
            report.requests,
            text::bytes(report.body_bytes as u64)
        ),
        format!(
            "  load       {}{rate}, {} connection(s); {} warm-up, {} counted",
            report.load,
            report.connections,
            time(report.warm_up_seconds),
            time(report.seconds)
        ),
        format!(
            "  answered   {} of {}, {}/s",
            text::count(report.successes),
            text::count(report.ended),
            text::three_digits(report.successes_per_second)
        ),
    ];
    if errors == 0 {
        lines.push("  errors     none".to_owned());
    }
    for (ending, words) in &report.errors {
        let count = report.endings.get(ending).copied().unwrap_or(0);
        let words: String = words.split_whitespace().collect::<Vec<_>>().join(" ");
        let colon = if words.is_empty() { "" } else { ": " };
        lines.push(format!(
            "  errors     {} × {ending}{colon}{words}",
            text::count(count)
        ));
    }
    lines.push(format!("  cpu        {}", cpu(report)));
    lines.push(String::new());
    lines.push(latencies(&report.latency));
    for warning in &report.warnings {
        lines.push(format!("  ! {warning}"));
    }
    lines.join("\n")
}

fn cpu(report: &Report) -> String {
    let own = format!("bench {}", time(report.cpu.own_seconds));
    match (
        report.cpu.server_seconds,
        report.cpu.successes_per_server_second,
    ) {
        (Some(server), Some(per_second)) => format!(
            "server {} ({} answers per CPU-second), {own}",
            time(server),
            text::three_digits(per_second)
        ),
        (Some(server), None) => format!("server {}, {own}", time(server)),
        _ => own,
    }
}

fn latencies(latency: &Latency) -> String {
    let mut head = vec![
        ("latency", Align::Left),
        ("mean", Align::Right),
        ("least", Align::Right),
    ];
    head.extend(QUANTILES.iter().map(|(name, _)| (*name, Align::Right)));
    let mut row = vec![
        format!("from when {}", latency.counted_from),
        time(latency.mean),
        time(latency.least),
    ];
    row.extend(
        QUANTILES
            .iter()
            .map(|(name, _)| time(latency.quantiles[name])),
    );
    text::table(&head, &[row])
}
