//! The dashboards ask for nothing that is not there: every query is parsed, and each metric and label in it is
//! looked for in what the server's and the operator's own registries write.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use ortolan_crds::{DriftStatus, RolloutEvidence, RolloutPhase, RolloutStatus};
use ortolan_server::{
    app::App,
    metrics::{Protocol, Rejection},
    options::Provider,
    startup::Done,
};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use serde_json::Value;

/// What Prometheus adds to the series of a pod, beside what the programs write.
const TARGET: [&str; 4] = ["namespace", "pod", "job", "instance"];

/// The labels of each series, by its name as a query writes it.
type Series = BTreeMap<String, BTreeSet<String>>;

fn read(text: &str) -> Series {
    let mut series = Series::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let selector = line.rsplit_once(' ').unwrap().0;
        let Ok(Expr::VectorSelector(selector)) = parser::parse(selector) else {
            panic!("no series: {line}");
        };
        let labels = selector.matchers.matchers.iter().map(|m| m.name.clone());
        series
            .entry(selector.name.unwrap())
            .or_default()
            .extend(labels);
    }
    series
}

/// Everything that can happen to a model has happened once.
fn server() -> Series {
    let app = App::new(1);
    let meter = app.metrics.meter("m", "1");
    let short = Duration::from_millis(1);
    drop(meter.begin());
    meter.answered(Protocol::V2, 200, short);
    meter.rejected(Rejection::QueueFull);
    meter.preprocessed(short);
    meter.inferred(short, short, 1);
    meter.postprocessed(short);
    meter.ran(1, short);
    meter.looked_up(true, short);
    meter.looked_up(false, short);
    meter.opened(Provider::CPU, Provider::CPU, 1);
    meter.loaded(&[Done {
        name: "Load",
        seconds: 1.0,
    }]);
    read(&app.metrics.render(&app).unwrap())
}

fn operator() -> Series {
    let metrics = ortolan_operator::metrics::Metrics::default();
    metrics.reconciled(Duration::from_millis(1), true);
    metrics.wrote("patch", "Service");
    metrics.failed("Timeout");
    metrics.leads(true);
    let key = ortolan_operator::index::Key {
        namespace: "demo".into(),
        name: "cats".into(),
    };
    let rollout = |phase, weight| RolloutStatus {
        phase,
        weight,
        ..RolloutStatus::default()
    };
    let failed = rollout(RolloutPhase::Failed, None);
    let step = RolloutStatus {
        evidence: Some(RolloutEvidence {
            drift: Some(DriftStatus::default()),
            ..RolloutEvidence::default()
        }),
        ..rollout(RolloutPhase::Step, Some(5))
    };
    metrics.rollout(&key, Some(&step), Some(&failed));
    metrics.rollout(&key, Some(&failed), Some(&step));
    read(&metrics.text())
}

fn dashboard(name: &str) -> Value {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../ortolan/dashboards").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Of every panel, with its title.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        targets.iter().map(move |target| (panel, target))
    });
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    targets
        .map(|(panel, target)| (text(&panel["title"]), text(&target["expr"])))
        .collect()
}

/// `label_values(SELECTOR, LABEL)` of each variable.
fn variables(dashboard: &Value) -> Vec<(String, String, String)> {
    let list = dashboard["templating"]["list"].as_array().unwrap().iter();
    let asked = list.filter(|variable| variable["type"] == "query");
    let parts = |variable: &Value| {
        let query = variable["query"]["query"].as_str().unwrap();
        let inner = query.strip_prefix("label_values(").unwrap();
        let (selector, label) = inner.strip_suffix(')').unwrap().rsplit_once(',').unwrap();
        let name = variable["name"].as_str().unwrap().to_owned();
        (name, selector.to_owned(), label.trim().to_owned())
    };
    asked.map(parts).collect()
}

/// The selectors of a query, each with the labels that the aggregation around it keeps.
fn walk<'e>(expr: &'e Expr, kept: &[String], found: &mut Vec<(&'e VectorSelector, Vec<String>)>) {
    match expr {
        Expr::VectorSelector(selector) => found.push((selector, kept.to_vec())),
        Expr::MatrixSelector(matrix) => found.push((&matrix.vs, kept.to_vec())),
        Expr::Aggregate(aggregate) => {
            let mut kept = kept.to_vec();
            if let Some(LabelModifier::Include(labels)) = &aggregate.modifier {
                kept.extend(labels.labels.iter().cloned());
            }
            walk(&aggregate.expr, &kept, found);
        }
        Expr::Call(call) => call
            .args
            .args
            .iter()
            .for_each(|argument| walk(argument, kept, found)),
        Expr::Binary(binary) => {
            walk(&binary.lhs, kept, found);
            walk(&binary.rhs, kept, found);
        }
        Expr::Paren(paren) => walk(&paren.expr, kept, found),
        Expr::Unary(unary) => walk(&unary.expr, kept, found),
        Expr::Subquery(subquery) => walk(&subquery.expr, kept, found),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
        other => panic!("no rule for {other:?}"),
    }
}

/// Sentences about what a query asks for and is not there.
fn faults(query: &str, series: &Series) -> Vec<String> {
    let query = query.replace("$__rate_interval", "5m");
    let expr = match parser::parse(&query) {
        Ok(expr) => expr,
        Err(error) => return vec![format!("{query}: {error}")],
    };
    let mut selectors = Vec::new();
    walk(&expr, &[], &mut selectors);
    if selectors.is_empty() {
        return vec![format!("{query} asks for no metric")];
    }
    let mut faults = Vec::new();
    for (selector, kept) in selectors {
        let name = selector.name.clone().unwrap_or_default();
        let Some(labels) = series.get(&name) else {
            faults.push(format!("{query}: there is no metric {name:?}"));
            continue;
        };
        let matched = selector.matchers.matchers.iter().map(|m| m.name.clone());
        for label in matched.chain(kept) {
            if !labels.contains(&label) && !TARGET.contains(&label.as_str()) {
                faults.push(format!("{query}: {name} has no label {label:?}"));
            }
        }
    }
    faults
}

fn check(file: &str, series: &Series) {
    let dashboard = dashboard(file);
    let mut names = BTreeSet::from(["datasource".to_owned(), "__rate_interval".to_owned()]);
    let mut wrong = Vec::new();
    for (name, selector, label) in variables(&dashboard) {
        wrong.extend(faults(&selector, series));
        wrong.extend(faults(&format!("sum by ({label}) ({selector})"), series));
        names.insert(name);
    }
    let queries = queries(&dashboard);
    assert!(queries.len() >= 5, "{file} shows next to nothing");
    for (title, query) in &queries {
        let found = faults(query, series);
        wrong.extend(found.into_iter().map(|fault| format!("{title}: {fault}")));
        let used = query.split('$').skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        });
        for variable in used.filter(|variable| !names.contains(*variable)) {
            wrong.push(format!("{title}: there is no variable {variable}"));
        }
    }
    assert!(wrong.is_empty(), "{file}:\n{}", wrong.join("\n"));
}

#[test]
fn the_dashboard_of_the_servers_asks_for_what_servers_tell() {
    check("server.json", &server());
}

#[test]
fn the_dashboard_of_the_operator_asks_for_what_operators_tell() {
    check("operator.json", &operator());
}

#[test]
fn every_kind_of_metric_of_ours_is_on_a_dashboard() {
    let mut asked = BTreeSet::new();
    for file in ["server.json", "operator.json"] {
        for (_, query) in queries(&dashboard(file)) {
            let expr = parser::parse(&query.replace("$__rate_interval", "5m")).unwrap();
            let mut selectors = Vec::new();
            walk(&expr, &[], &mut selectors);
            asked.extend(selectors.iter().filter_map(|(s, _)| s.name.clone()));
        }
    }
    let stem = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"].iter();
        let mut stems = parts.filter_map(|part| name.strip_suffix(part));
        stems.next().unwrap_or(name).to_owned()
    };
    let asked: BTreeSet<String> = asked.iter().map(|name| stem(name)).collect();
    let told = server().into_keys().chain(operator().into_keys());
    let ours = told.filter(|name| name.starts_with("ortolan_"));
    let missing: BTreeSet<String> = ours
        .map(|name| stem(&name))
        .filter(|name| !asked.contains(name))
        .collect();
    assert_eq!(missing, BTreeSet::new(), "on no dashboard");
}

#[test]
fn what_is_not_there_is_found() {
    let series = server();
    for (query, part) in [
        (
            "rate(ortolan_request_total[5m])",
            "no metric \"ortolan_request_total\"",
        ),
        (
            "sum by (le) (rate(ortolan_queue_seconds_bucket{protocol=\"v2\"}[5m]))",
            "no label \"protocol\"",
        ),
        ("sum by (code) (ortolan_in_flight)", "no label \"code\""),
        (
            "ortolan_sessions / (ortolan_sessions + nowhere)",
            "no metric \"nowhere\"",
        ),
        (
            "rate(ortolan_requests_total[)",
            "rate(ortolan_requests_total[)",
        ),
        ("1 + 1", "asks for no metric"),
    ] {
        let faults = faults(query, &series);
        assert!(
            faults.iter().any(|fault| fault.contains(part)),
            "{query}: {faults:?}"
        );
    }
    assert!(
        faults(
            "sum by (pod) (rate(ortolan_requests_total{model=\"m\"}[5m]))",
            &series
        )
        .is_empty()
    );
}
