//! The report of `tune`.

use serde_json::{Value as Json, json};

use super::{
    Report,
    choose::{self, Cell, Choice, Slo},
};
use crate::tool::text::{self, Align};

/// The longest bar of the plot.
const WIDTH: usize = 28;
/// A first setting that changed by more than this until the end makes the order of settings doubtful.
const DRIFT: f64 = 0.10;

pub(super) fn text(report: &Report) -> String {
    let choice = choose::choose(&report.cells, report.slo);
    let mut lines = vec![
        format!("  model     {} ({})", report.uri, report.package.digest),
        format!("  inputs    {}", report.inputs),
        format!(
            "  machine   {} CPU(s) for this process; two batches a session under way",
            report.cpus
        ),
    ];
    let batches = if report.batchable {
        "can be put together"
    } else {
        "cannot be put together"
    };
    lines.push(format!(
        "  rows      {batches}; what the server does unasked: {}",
        report.reason
    ));
    lines.push(String::new());
    lines.push(table(report, choice));
    lines.extend(
        report
            .left_out
            .iter()
            .map(|why| format!("  left out: {why}")),
    );
    if let Some(choice) = choice {
        lines.push(verdict(report, choice));
        lines.push(String::new());
        let knee = &report.cells[choice.knee];
        lines.push(yaml(knee, report.batchable));
        lines.push(format!("\n# {}", command(report, knee)));
    }
    lines.extend(
        warnings(report)
            .into_iter()
            .map(|warning| format!("  ! {warning}")),
    );
    lines.join("\n")
}

fn table(report: &Report, choice: Option<Choice>) -> String {
    let tail = Slo::name(report.quantile);
    let head = [
        ("sessions", Align::Right),
        ("threads", Align::Right),
        ("batch", Align::Right),
        ("together", Align::Right),
        ("rows/s", Align::Right),
        ("spread", Align::Right),
        ("p50", Align::Right),
        (tail.as_str(), Align::Right),
        ("", Align::Left),
    ];
    let most = report
        .cells
        .iter()
        .map(|cell| cell.rows.median)
        .fold(0.0, f64::max);
    let rows: Vec<Vec<String>> = report
        .cells
        .iter()
        .enumerate()
        .map(|(at, cell)| {
            let mut bar = text::bar(cell.rows.median, most, WIDTH);
            bar.push_str(mark(at, cell, report.slo, choice));
            vec![
                cell.layout.sessions.to_string(),
                cell.layout.threads.to_string(),
                cell.batch.to_string(),
                text::three_digits(cell.together),
                text::three_digits(cell.rows.median),
                format!("{:.0} %", cell.rows.relative() * 100.0),
                text::duration(cell.p50),
                text::duration(cell.tail),
                bar,
            ]
        })
        .collect();
    text::table(&head, &rows)
}

fn mark(at: usize, cell: &Cell, slo: Option<Slo>, choice: Option<Choice>) -> &'static str {
    match choice {
        Some(choice) if choice.knee == at && !choice.misses_goal => " ◄ knee",
        Some(choice) if choice.best == at && !choice.misses_goal => " ◄ most",
        _ if slo.is_some_and(|slo| cell.tail > slo.limit) => " ✗ misses the goal",
        _ => "",
    }
}

fn verdict(report: &Report, choice: Choice) -> String {
    let knee = &report.cells[choice.knee];
    let tail = Slo::name(report.quantile);
    if let (true, Some(slo)) = (choice.misses_goal, report.slo) {
        return format!(
            "  no setting keeps {tail} ≤ {} at saturation; the lowest is {}: send less than it can take, or use more \
             or faster CPUs",
            text::duration(slo.limit),
            text::duration(knee.tail)
        );
    }
    let goal = report.slo.map_or_else(String::new, |slo| {
        format!(
            " among those that keep {tail} ≤ {}",
            text::duration(slo.limit)
        )
    });
    format!(
        "  the knee: the smallest setting within {:.0} % of the most rows a second{goal}: {} rows/s, {tail} {}",
        choice.tolerance * 100.0,
        text::three_digits(knee.rows.median),
        text::duration(knee.tail)
    )
}

/// As it goes into an InferenceService's spec.
fn yaml(cell: &Cell, batchable: bool) -> String {
    let batching = if batchable {
        format!("\n  batching:\n    maxBatchSize: {}", cell.batch)
    } else {
        String::new()
    };
    format!(
        "server:\n  sessions: {}\n  threads: {}{batching}",
        cell.layout.sessions, cell.layout.threads
    )
}

/// The same on the command line.
fn command(report: &Report, cell: &Cell) -> String {
    let batching = if report.batchable {
        format!(" --max-batch {}", cell.batch)
    } else {
        String::new()
    };
    format!(
        "ortolan-server {} --sessions {} --threads {}{batching}",
        report.uri, cell.layout.sessions, cell.layout.threads
    )
}

fn warnings(report: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let noise = choose::noise(&report.cells);
    if choose::is_noisy(noise) {
        warnings.push(format!(
            "this machine is noisy: rounds of one setting differ by {:.0} % (median); smaller differences mean nothing. \
             Stop other work, or raise --rounds and --time",
            noise * 100.0
        ));
    }
    if report.drift.abs() > DRIFT {
        warnings.push(format!(
            "the machine changed meanwhile: the first setting, measured again at the end, gave {:+.0} % rows a second",
            report.drift * 100.0
        ));
    }
    warnings
}

pub(super) fn json(report: &Report) -> Json {
    let choice = choose::choose(&report.cells, report.slo);
    let cell = |cell: &Cell| {
        json!({
            "sessions": cell.layout.sessions,
            "threads": cell.layout.threads,
            "batch": cell.batch,
            "rowsTogether": cell.together,
            "rowsPerSecond": cell.rows,
            "p50Seconds": cell.p50.as_secs_f64(),
            "tailSeconds": cell.tail.as_secs_f64(),
        })
    };
    json!({
        "model": report.uri,
        "digest": report.package.digest.to_string(),
        "inputs": report.inputs,
        "cpus": report.cpus,
        "batchable": report.batchable,
        "unasked": report.reason,
        "quantile": report.quantile,
        "goalSeconds": report.slo.map(|slo| slo.limit.as_secs_f64()),
        "settings": report.cells.iter().map(cell).collect::<Vec<_>>(),
        "leftOut": report.left_out,
        "knee": choice.map(|choice| cell(&report.cells[choice.knee])),
        "most": choice.map(|choice| cell(&report.cells[choice.best])),
        "tolerance": choice.map(|choice| choice.tolerance),
        "missesGoal": choice.map(|choice| choice.misses_goal),
        "noise": choose::noise(&report.cells),
        "drift": report.drift,
        "warnings": warnings(report),
    })
}
