//! The picture: for each scenario violations over replicas by rule, and the course of one scenario.

use std::fmt::Write as _;

use super::{
    run::{ALL, Name, capacity},
    tables::Row,
};

const WIDTH: f64 = 250.0;
const HEIGHT: f64 = 190.0;
const COLUMNS: usize = 4;
/// Inside a panel: left, right, top, bottom.
const MARGIN: (f64, f64, f64, f64) = (34.0, 12.0, 24.0, 28.0);
/// Violations that are drawn, in per cent: from the foot of the picture to its top, by their logarithm.
const LEAST: f64 = 0.01;
const MOST: f64 = 100.0;

const fn colour(name: Name) -> &'static str {
    match name {
        Name::Ours => "#c1121f",
        Name::Naive => "#6c757d",
        Name::HpaP95 => "#1d4ed8",
        Name::HpaConcurrency => "#0891b2",
        Name::Kpa => "#7c3aed",
        Name::StaticMean => "#a16207",
        Name::StaticPeak => "#d97706",
        Name::Oracle => "#15803d",
    }
}

/// The whole picture.
pub fn picture(rows: &[Row], course: &str) -> String {
    let mut names: Vec<&str> = rows.iter().map(|row| row.scenario.name).collect();
    names.dedup();
    let lines = names.len().div_ceil(COLUMNS);
    let width = WIDTH * COLUMNS as f64;
    let top = HEIGHT * lines as f64;
    let height = top + 40.0 + 260.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"10\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, name) in names.iter().enumerate() {
        let some: Vec<&Row> = rows
            .iter()
            .filter(|row| row.scenario.name == *name)
            .collect();
        let left = WIDTH * (at % COLUMNS) as f64;
        scatter(&mut text, name, &some, left, HEIGHT * (at / COLUMNS) as f64);
    }
    for (at, name) in ALL.into_iter().enumerate() {
        let x = 20.0 + at as f64 * (width - 40.0) / ALL.len() as f64;
        let _ = writeln!(
            text,
            "<circle cx=\"{x}\" cy=\"{}\" r=\"4\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            top + 16.0,
            colour(name),
            x + 8.0,
            top + 20.0,
            name.text()
        );
    }
    let some: Vec<&Row> = rows
        .iter()
        .filter(|row| row.scenario.name == course)
        .collect();
    courses(&mut text, course, &some, top + 40.0, width);
    text.push_str("</svg>\n");
    text
}

fn label(text: &mut String, x: f64, y: f64, anchor: &str, what: &str) {
    let _ = writeln!(
        text,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{what}</text>"
    );
}

fn frame(text: &mut String, left: f64, top: f64, width: f64, height: f64) {
    let _ = writeln!(
        text,
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"none\" stroke=\"#999\"/>"
    );
}

fn scatter(text: &mut String, name: &str, rows: &[&Row], left: f64, top: f64) {
    let (l, r, t, b) = MARGIN;
    let (width, height) = (WIDTH - l - r, HEIGHT - t - b);
    let most = rows
        .iter()
        .map(|row| row.mean(|run| run.replicas).mean)
        .fold(1.0, f64::max)
        .ceil();
    let place = |replicas: f64, violations: f64| {
        let share = (violations.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
        (
            left + l + width * replicas / most,
            top + t + height * (1.0 - share),
        )
    };
    label(
        text,
        left + l,
        top + 16.0,
        "start",
        &format!("<tspan font-weight=\"bold\">{name}</tspan>"),
    );
    frame(text, left + l, top + t, width, height);
    for per_cent in [0.01, 0.1, 1.0, 10.0, 100.0] {
        let (x, y) = place(0.0, per_cent);
        label(text, x - 3.0, y + 3.0, "end", &per_cent.to_string());
    }
    // The budget of p95.
    let ((from, y), (to, _)) = (place(0.0, 5.0), place(most, 5.0));
    let _ = writeln!(
        text,
        "<path d=\"M{from:.1} {y:.1}H{to:.1}\" stroke=\"#999\" stroke-dasharray=\"3 3\"/>"
    );
    for replicas in [0.0, most] {
        let (x, y) = place(replicas, LEAST);
        label(text, x, y + 12.0, "middle", &replicas.to_string());
    }
    let (x, y) = place(most / 2.0, LEAST);
    label(text, x, y + 12.0, "middle", "replicas");
    for row in rows.iter().rev() {
        let (x, y) = place(
            row.mean(|run| run.replicas).mean,
            row.mean(|run| run.violations).mean,
        );
        let _ = writeln!(
            text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{}\"/>",
            colour(row.name)
        );
    }
}

/// The first run of some rules, and what the model would need for the rate.
fn courses(text: &mut String, name: &str, rows: &[&Row], top: f64, whole: f64) {
    let (l, r, t, b) = MARGIN;
    let (width, height) = (whole - l - r, 260.0 - t - b);
    let shown: Vec<_> = rows
        .iter()
        .filter(|row| matches!(row.name, Name::Ours | Name::HpaP95 | Name::Kpa))
        .filter_map(|row| Some((row, &row.runs.first()?.course)))
        .collect();
    let Some((first, course)) = shown.first() else {
        return;
    };
    let each = capacity(first.scenario.kind);
    let steps = shown.iter().flat_map(|(_, course)| course.iter());
    let most = f64::from(steps.map(|step| step.1).max().unwrap_or(1)) + 1.0;
    let last = course.len().max(1) as f64;
    let place = |second: usize, replicas: f64| {
        (
            l + width * second as f64 / last,
            top + t + height * (1.0 - replicas / most),
        )
    };
    label(
        text,
        l,
        top + 16.0,
        "start",
        &format!(
            "<tspan font-weight=\"bold\">{name}</tspan>: replicas by the second; grey: the rate by what a replica carries"
        ),
    );
    frame(text, l, top + t, width, height);
    for replicas in [0.0, (most / 2.0).floor(), most] {
        let (x, y) = place(0, replicas);
        label(text, x - 3.0, y + 3.0, "end", &replicas.to_string());
    }
    let mut line = |of: &dyn Fn(usize) -> f64, stroke: &str| {
        let mut path = String::new();
        let mut before = f64::NAN;
        for second in 0..course.len() {
            let value = of(second);
            if value != before {
                let (x, y) = place(second, value);
                let (_, from) = place(second, before);
                let _ = match second {
                    0 => write!(path, "M{x:.1} {y:.1}"),
                    _ => write!(path, "L{x:.1} {from:.1}V{y:.1}"),
                };
                before = value;
            }
        }
        let (x, _) = place(course.len(), 0.0);
        let _ = writeln!(
            text,
            "<path d=\"{path}H{x:.1}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"1.3\"/>"
        );
    };
    // By ten seconds: the picture has no more points.
    let rate = |second: usize| course.get(second / 10 * 10).map_or(0.0, |step| step.0);
    line(&|second| rate(second) / each, "#bbb");
    for (row, course) in shown.iter().rev() {
        line(&|second| f64::from(course[second].1), colour(row.name));
    }
}
