//! The report of `optimize`.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value as Json, json};

use super::{Report, Side, difference::Difference, timing::Cost};
use crate::tool::{
    stats::Spread,
    text::{self, Align},
};

pub(super) fn text(report: &Report) -> String {
    let rows = changes(report);
    let head = ["", "before", "after", "change"];
    let mut lines = vec![
        format!(
            "  wrote {} (level {}, by {})",
            report.output.display(),
            format!("{:?}", report.level).to_lowercase(),
            report.runtime
        ),
        String::new(),
        text::table(&head.map(|name| (name, Align::Right)), &rows),
        format!(
            "  outputs, over {} run(s) of {}, moved",
            report.comparison.runs, report.comparison.inputs
        ),
    ];
    for output in &report.comparison.outputs {
        lines.push(format!(
            "    {}: from the file as it is served now {}",
            output.name,
            moved(&output.from_served)
        ));
        lines.push(format!(
            "    {}from the file with nothing optimised {}",
            " ".repeat(output.name.chars().count() + 2),
            moved(&output.from_unoptimised)
        ));
    }
    lines.push(String::new());
    lines.push(operators(report));
    let mut cells = rows.iter().flatten();
    if cells.any(|cell| cell.starts_with(UNCERTAIN)) {
        lines.push(format!(
            "  {UNCERTAIN}the {} measurements of both files overlap: this is no difference yet; more --rounds may tell",
            report.rounds
        ));
    }
    let warnings = report.warnings.iter();
    lines.extend(warnings.map(|warning| format!("  ! {warning}")));
    lines.join("\n")
}

/// What changed, from size to run time.
fn changes(report: &Report) -> Vec<Vec<String>> {
    let (before, after) = (&report.before, &report.after);
    let counts = |name: &str, show: fn(u64) -> String, before: u64, after: u64| {
        row(
            name,
            &show(before),
            &show(after),
            ratio(before as f64, after as f64),
        )
    };
    let measured = |name: &str, show: fn(f64) -> String, pick: fn(&Cost) -> Spread| {
        costs(name, pick(&before.cost), pick(&after.cost), show)
    };
    let time = |value: f64| text::duration(seconds(value));
    let bytes = |value: f64| text::bytes(value.max(0.0) as u64);
    let nodes = (before.census.nodes(), after.census.nodes());
    vec![
        counts("file", text::bytes, before.bytes, after.bytes),
        counts("nodes", text::count, nodes.0, nodes.1),
        measured("load", time, |cost| cost.load_seconds),
        measured("memory", bytes, |cost| cost.memory_bytes),
        measured("run", time, |cost| cost.run_seconds),
    ]
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn row(name: &str, before: &str, after: &str, change: String) -> Vec<String> {
    vec![name.to_owned(), before.to_owned(), after.to_owned(), change]
}

/// A difference that the measurements of one file show among themselves, too, is marked.
fn costs(name: &str, before: Spread, after: Spread, show: fn(f64) -> String) -> Vec<String> {
    let change = ratio(before.median, after.median);
    let mark = if overlap(before, after) {
        UNCERTAIN
    } else {
        ""
    };
    row(
        name,
        &show(before.median),
        &show(after.median),
        format!("{mark}{change}"),
    )
}

const UNCERTAIN: &str = "~ ";

fn overlap(a: Spread, b: Spread) -> bool {
    a.least <= b.most && b.least <= a.most
}

/// `-12 %`
fn ratio(before: f64, after: f64) -> String {
    if before <= 0.0 {
        return "-".to_owned();
    }
    let percent = ((after / before - 1.0) * 100.0).round();
    // No "-0 %".
    format!("{:+.0} %", percent + 0.0)
}

fn moved(difference: &Difference) -> String {
    if difference.incomparable > 0 {
        return format!(
            "from a number to none, or back, in {} element(s)",
            text::count(difference.incomparable)
        );
    }
    if difference.different == 0 {
        return format!("not at all ({} elements)", text::count(difference.elements));
    }
    format!(
        "at most {:.3e}, that is {:.1e} of the largest value ({} of {} elements moved)",
        difference.largest,
        difference.relative(),
        text::count(difference.different),
        text::count(difference.elements)
    )
}

/// The operators whose number changed.
fn operators(report: &Report) -> String {
    let (before, after) = (
        &report.before.census.operators,
        &report.after.census.operators,
    );
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let mut rows = Vec::new();
    let mut same = 0;
    for name in names {
        let count =
            |side: &std::collections::BTreeMap<_, u64>| side.get(name).copied().unwrap_or(0);
        let (was, is) = (count(before), count(after));
        if was == is {
            same += is;
            continue;
        }
        let shown = if name.0.is_empty() {
            name.1.clone()
        } else {
            format!("{}.{}", name.0, name.1)
        };
        rows.push(vec![shown, was.to_string(), is.to_string()]);
    }
    if rows.is_empty() {
        return "  the operators are the same\n".to_owned();
    }
    rows.push(vec![
        "all others".to_owned(),
        same.to_string(),
        same.to_string(),
    ]);
    text::table(
        &[
            ("operator", Align::Left),
            ("before", Align::Right),
            ("after", Align::Right),
        ],
        &rows,
    )
}

pub(super) fn json(report: &Report) -> Json {
    let side = |side: &Side| {
        let operators: Vec<Json> = side
            .census
            .operators
            .iter()
            .map(|((domain, name), count)| json!({"domain": domain, "operator": name, "count": count}))
            .collect();
        json!({
            "bytes": side.bytes,
            "nodes": side.census.nodes(),
            "operators": operators,
            "cost": side.cost,
        })
    };
    json!({
        "output": report.output.display().to_string(),
        "level": report.level,
        "onnxRuntime": report.runtime,
        "before": side(&report.before),
        "after": side(&report.after),
        "comparison": report.comparison,
        "warnings": report.warnings,
    })
}
