//! What GitOps tools make of every state of a service: Argo CD by docs/gitops/health.lua, Flux by kstatus. No API server is needed
//! here; tests/cli.rs shows that a real one takes these objects.

use std::{collections::BTreeMap, fs, path::Path};

use ortolan_tests::{
    argo::{self, health},
    kstatus::{Kstatus, kstatus},
};
use serde_json::{Value, json};

/// By name: the health that the file says, and the object.
fn recorded() -> BTreeMap<String, (String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gitops/objects");
    let files = fs::read_dir(folder).expect("the folder of objects");
    files
        .map(|file| file.expect("a file").path())
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a text");
            let says = text
                .lines()
                .find_map(|line| line.strip_prefix("# health: "));
            let says = says.unwrap_or_else(|| panic!("{} says its health", path.display()));
            let object =
                argo::read(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, (says.to_owned(), object))
        })
        .collect()
}

fn of(name: &str) -> Value {
    let (_, object) = recorded().remove(name).expect("an object of that name");
    object
}

fn status(object: &Value) -> String {
    health(object).expect("the script runs").status
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)
}

#[test]
fn argo_cd_sees_each_state_as_its_file_says() {
    for (name, (says, object)) in recorded() {
        let health = health(&object).expect("the script runs");
        assert_eq!(health.status, says, "{name}: {}", health.message);
        assert!(!health.message.is_empty(), "{name}");
    }
}

#[test]
fn there_is_an_object_of_every_phase_of_a_rollout_and_of_every_health() {
    let all = recorded();
    for phase in [
        "Stable",
        "Stopping",
        "Preparing",
        "Shadowing",
        "Step",
        "AwaitingApproval",
        "Promoting",
        "Aborting",
        "Failed",
    ] {
        assert!(
            all.values()
                .any(|(_, object)| object["status"]["rollout"]["phase"] == phase),
            "{phase}"
        );
    }
    for paused in ["Commanded", "Inconclusive", "Spec"] {
        assert!(
            all.values()
                .any(|(_, object)| object["status"]["rollout"]["paused"] == paused),
            "{paused}"
        );
    }
    for health in ["Healthy", "Progressing", "Suspended", "Degraded"] {
        assert!(all.values().any(|(says, _)| says == health), "{health}");
    }
}

#[test]
fn what_is_merely_in_progress_is_never_degraded() {
    for (name, (_, object)) in recorded() {
        let is_stalled =
            condition(&object, "Stalled").is_some_and(|stalled| stalled["status"] == "True");
        let is_degraded = status(&object) == "Degraded";
        assert_eq!(is_degraded, is_stalled, "{name}");
        assert_eq!(kstatus(&object) == Kstatus::Failed, is_stalled, "{name}");
    }
}

#[test]
fn flux_agrees_with_argo_cd_but_knows_no_suspension() {
    for (name, (says, object)) in recorded() {
        let expected = match (name.as_str(), says.as_str()) {
            ("deleting", _) => Kstatus::Terminating,
            // kstatus takes an object without a status for one that needs none, until the operator writes the first one.
            ("new", _) => Kstatus::Current,
            (_, "Healthy") => Kstatus::Current,
            (_, "Progressing" | "Suspended") => Kstatus::InProgress,
            (_, "Degraded") => Kstatus::Failed,
            (_, other) => panic!("{name} says {other}"),
        };
        assert_eq!(kstatus(&object), expected, "{name}");
    }
}

#[test]
fn a_status_of_the_spec_before_is_progress_whatever_it_says() {
    for (name, (_, mut object)) in recorded() {
        if object["status"].is_null() {
            continue;
        }
        object["metadata"]["generation"] = json!(99);
        assert_eq!(status(&object), "Progressing", "{name}");
    }
}

#[test]
fn reasons_that_are_yet_to_come_change_nothing() {
    let mut object = of("serving");
    object["status"]["conditions"][0]["reason"] = json!("ScaledToZero");
    assert_eq!(status(&object), "Healthy");
    let mut object = of("starting");
    object["status"]["conditions"][0]["reason"] = json!("SomethingNew");
    assert_eq!(status(&object), "Progressing");
}

#[test]
fn odd_objects_are_progress_and_no_error_of_the_script() {
    for status_of in [
        json!({}),
        json!({"conditions": []}),
        json!({"observedGeneration": 1}),
        json!({"observedGeneration": 1, "conditions": []}),
        json!({"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}),
        json!({"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "Unknown", "reason": "X", "message": null}]}),
    ] {
        let object = json!({"metadata": {"generation": 1}, "status": status_of});
        assert_eq!(status(&object), "Progressing", "{object}");
    }
}
