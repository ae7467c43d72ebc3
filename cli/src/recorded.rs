//! Tests of every view on the objects of docs/gitops/objects, one of each state that a service can be in.

use std::{collections::BTreeMap, fs, path::Path};

use jiff::Timestamp;
use ortolan_crds::InferenceService;

use crate::{
    facts::PodFacts,
    get::{self, Columns},
    rollout::outcome::{Goal, Outcome, outcome},
    status::view::view,
};

/// An object, and what a GitOps tool should make of it.
struct Recorded {
    service: InferenceService,
    health: String,
}

fn recorded() -> BTreeMap<String, Recorded> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gitops/objects");
    let files = fs::read_dir(&folder).expect("the folder of objects");
    let all: BTreeMap<String, Recorded> = files
        .map(|file| file.expect("a file").path())
        .map(|path| {
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let text = fs::read_to_string(&path).expect("a text");
            let health = text
                .lines()
                .find_map(|line| line.strip_prefix("# health: "));
            let health = health
                .unwrap_or_else(|| panic!("{name} says its health"))
                .to_owned();
            let service =
                serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, Recorded { service, health })
        })
        .collect();
    assert!(all.len() > 20, "there are objects of every state");
    all
}

fn now() -> Timestamp {
    "2026-03-02T09:05:30Z".parse().expect("a time")
}

#[test]
fn every_state_is_a_row_of_the_table() {
    let all = recorded();
    let services: Vec<&InferenceService> = all.values().map(|recorded| &recorded.service).collect();
    insta::assert_snapshot!(get::table(&services, Columns::default(), now()).render());
}

#[test]
fn a_wide_table_of_all_namespaces_has_more_columns() {
    let all = recorded();
    let services = [&all["canary-step"].service, &all["new"].service];
    let columns = Columns {
        namespace: true,
        wide: true,
    };
    insta::assert_snapshot!(get::table(&services, columns, now()).render());
}

#[test]
fn every_state_has_a_view() {
    let views: Vec<String> = recorded()
        .iter()
        .map(|(name, recorded)| format!("===== {name}\n{}", view(&recorded.service, &[], now())))
        .collect();
    insta::assert_snapshot!(views.join("\n"));
}

#[test]
fn a_view_shows_the_pods() {
    let pod = |name: &str, revision: &str, ready: bool| PodFacts {
        name: name.into(),
        revision: revision.into(),
        ready,
        state: if ready { "Running" } else { "CrashLoopBackOff" }.into(),
        restarts: i32::from(!ready),
        node: "node-1".into(),
        since: Some("2026-03-02T08:00:30Z".parse().expect("a time")),
    };
    let pods = [
        pod("cats-1a2b3c4d-x", "cats-1a2b3c4d", true),
        pod("cats-9f8e7d6c-y", "cats-9f8e7d6c", false),
    ];
    insta::assert_snapshot!(view(&recorded()["canary-step"].service, &pods, now()));
}

#[test]
fn a_pipeline_hears_what_a_gitops_tool_sees() {
    for (name, recorded) in recorded() {
        let came = outcome(&recorded.service, Goal::Promoted, None);
        let hears = match came {
            Outcome::Reached(_) => "Healthy",
            Outcome::Failed(_) => "Degraded",
            Outcome::Waiting(_) => "Suspended",
            Outcome::UnderWay(_) => "Progressing",
        };
        let expected = match name.as_str() {
            // It is as its spec says, and nothing is promoted.
            "suspended" => "Suspended",
            // It will never be promoted.
            "deleting" => "Degraded",
            _ => &recorded.health,
        };
        assert_eq!(hears, expected, "{name}: {came:?}");
    }
}
