//! The command `ortolan` against a real API server: what it shows, what it writes, and how it ends. The tests write the
//! statuses; where the operator's own matter, it runs.

mod canary;
mod rollouts;

use std::{
    path::PathBuf,
    process::{Output, Stdio},
};

use kube::api::{Patch, PatchParams, PostParams};
use ortolan_crds::InferenceService;
use ortolan_tests::{
    World, argo,
    world::{definition_stays, spec, world},
};
use serde_json::{Value, json};
use tokio::process::Command;

fn program() -> PathBuf {
    let program = std::env::var_os("ORTOLAN_CLI")
        .expect("ORTOLAN_CLI names the program: start the tests by tests/run");
    PathBuf::from(program)
}

fn command(w: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command
        .args(arguments)
        .args(["--namespace", &w.namespace])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What the program said and how it ended.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ends by itself"),
            out: String::from_utf8(output.stdout).expect("a text"),
            err: String::from_utf8(output.stderr).expect("a text"),
        }
    }
}

async fn ortolan(w: &World, arguments: &[&str]) -> Said {
    command(w, arguments)
        .output()
        .await
        .expect("the program runs")
        .into()
}

/// It ends with this code; what it wrote goes back to the test.
async fn ends(w: &World, arguments: &[&str], code: i32) -> Said {
    let said = ortolan(w, arguments).await;
    assert_eq!(said.code, code, "{arguments:?}: {} {}", said.out, said.err);
    said
}

/// It is refused with these words.
async fn refused(w: &World, arguments: &[&str], words: &str) {
    let said = ends(w, arguments, 1).await;
    assert!(said.err.contains(words), "{arguments:?}: {}", said.err);
    assert!(
        said.err.starts_with("error: ") && said.out.is_empty(),
        "{} {}",
        said.err,
        said.out
    );
}

async fn write_status(w: &World, name: &str, status: &Value) -> InferenceService {
    let service: InferenceService = w.get(name).await;
    let mut status = status.clone();
    status["observedGeneration"] = json!(service.metadata.generation);
    let patch = Patch::Merge(json!({"status": status}));
    let written = w
        .api::<InferenceService>()
        .patch_status(name, &PatchParams::default(), &patch)
        .await;
    written.expect("the status is accepted")
}

fn ready(status: &str, reason: &str) -> Value {
    json!([{"type": "Ready", "status": status, "reason": reason, "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}])
}

fn at(phase: &str, more: Value) -> Value {
    let mut rollout = json!({"phase": phase, "stable": "cats-1", "candidate": "cats-2", "step": null, "stage": null, "paused": null, "reason": null});
    if phase == "Stable" {
        rollout["candidate"] = Value::Null;
    }
    for (key, value) in more.as_object().into_iter().flatten() {
        rollout[key] = value.clone();
    }
    json!({"conditions": ready("False", "RollingOut"), "rollout": rollout})
}

/// Every state that docs/gitops/objects has, as the API server takes it.
fn recorded() -> Vec<(String, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/gitops/objects");
    let files = std::fs::read_dir(folder).expect("the folder of objects");
    files
        .map(|file| file.expect("a file").path())
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a text");
            let object = argo::read(&text).expect("an object");
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, object)
        })
        .collect()
}

#[test]
fn every_recorded_state_is_one_that_the_api_server_takes_and_the_program_shows() {
    let _undisturbed = definition_stays();
    world(async |w| {
        for (name, object) in recorded() {
            w.create(&name, object["spec"].clone()).await;
            if object["status"].is_null() {
                continue;
            }
            let written = write_status(&w, &name, &object["status"]).await;
            let written = serde_json::to_value(&written.status).expect("JSON");
            let mut expected = object["status"].clone();
            expected["observedGeneration"] = written["observedGeneration"].clone();
            let expected: ortolan_crds::InferenceServiceStatus =
                serde_json::from_value(expected).expect("a status");
            assert_eq!(
                written,
                serde_json::to_value(expected).expect("JSON"),
                "{name}: nothing is pruned"
            );
            let said = ends(&w, &["status", &name], 0).await;
            let ready = object["status"]["conditions"][0]["reason"]
                .as_str()
                .expect("a reason");
            assert!(
                said.out.contains(ready) && said.out.contains("REVISION"),
                "{}",
                said.out
            );
        }
        let said = ends(&w, &["get"], 0).await;
        assert_eq!(
            said.out.lines().count(),
            1 + recorded().len(),
            "{}",
            said.out
        );
        let step = said
            .out
            .lines()
            .find(|line| line.starts_with("canary-step "))
            .expect("its line");
        assert!(
            step.contains("cats-1a2b3c4d 75% cats-9f8e7d6c 25%   Step 2/3 Soak"),
            "{step}"
        );
        let wide = ends(&w, &["get", "canary-step", "-o", "wide"], 0).await;
        assert!(
            wide.out.contains("https://models.example.com/cats-v2.onnx"),
            "{}",
            wide.out
        );
        let all = ends(&w, &["get", "-A"], 0).await;
        assert!(
            all.out.contains(&w.namespace) && all.out.starts_with("NAMESPACE"),
            "{}",
            all.out
        );
    });
}

#[test]
fn objects_are_printed_as_they_are() {
    let _undisturbed = definition_stays();
    world(async |w| {
        w.create("cats", spec("a")).await;
        write_status(&w, "cats", &at("Step", json!({"step": 1}))).await;
        let one: Value =
            serde_json::from_str(&ends(&w, &["get", "oisvc/cats", "-o", "json"], 0).await.out)
                .expect("JSON");
        assert_eq!(
            (&one["kind"], &one["spec"]["model"]),
            (&json!("InferenceService"), &spec("a")["model"])
        );
        let list: Value =
            serde_json::from_str(&ends(&w, &["get", "-o", "json"], 0).await.out).expect("JSON");
        assert_eq!((&list["kind"], &list["items"][0]), (&json!("List"), &one));
        let yaml = ends(&w, &["get", "cats", "-o", "yaml"], 0).await.out;
        assert_eq!(argo::read(&yaml).expect("YAML"), one);
        let status: Value =
            serde_json::from_str(&ends(&w, &["status", "cats", "-o", "json"], 0).await.out)
                .expect("JSON");
        assert_eq!(
            (&status["status"], &status["pods"]),
            (&one["status"], &json!([]))
        );
        // No terminal: it is printed once, and ends.
        let watched = ends(&w, &["status", "cats", "-w"], 0).await;
        assert!(watched.out.contains("Rollout    Step 1"), "{}", watched.out);
    });
}

#[test]
fn completions_are_written_for_every_shell() {
    world(async |w| {
        for shell in ["bash", "zsh", "fish", "powershell"] {
            let said = ends(&w, &["completion", shell], 0).await;
            assert!(
                said.out.contains("ortolan") && said.out.contains("rollout"),
                "{shell}"
            );
        }
    });
}

#[test]
fn a_prediction_without_a_ready_pod_says_where_to_look() {
    let _undisturbed = definition_stays();
    world(async |w| {
        w.create("cats", spec("a")).await;
        refused(
            &w,
            &["predict", "cats", "--text", "hello"],
            "no revision of it serves yet",
        )
        .await;
        let serving = json!({"conditions": ready("True", "Serving"), "traffic": [{"revision": "cats-1", "weight": 100}],
            "revisions": [{"name": "cats-1", "phase": "Serving", "replicas": 1, "readyReplicas": 1}]});
        write_status(&w, "cats", &serving).await;
        refused(
            &w,
            &["predict", "cats", "--text", "hello"],
            "no pod of cats-1 is ready",
        )
        .await;
        refused(
            &w,
            &["predict", "cats", "--text", "hello", "--revision", "cats-9"],
            "it has: cats-1",
        )
        .await;
        refused(
            &w,
            &["predict", "cats", "-f", "/nowhere.jpg"],
            "/nowhere.jpg cannot be read",
        )
        .await;
        let alias: k8s_openapi::api::core::v1::Service = serde_json::from_value(json!({
            "metadata": {"name": "cats"},
            "spec": {"type": "ExternalName", "externalName": format!("routers.{}.svc.cluster.local", w.namespace)},
        }))
        .expect("a Service");
        w.api()
            .create(&PostParams::default(), &alias)
            .await
            .expect("the Service is accepted");
        refused(
            &w,
            &["predict", "cats", "--text", "hello"],
            "is no Service of this cluster",
        )
        .await;
        let routers: k8s_openapi::api::core::v1::Service = serde_json::from_value(json!({
            "metadata": {"name": "routers"},
            "spec": {"selector": {"app": "routers"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }))
        .expect("a Service");
        w.api()
            .create(&PostParams::default(), &routers)
            .await
            .expect("the Service is accepted");
        refused(
            &w,
            &["predict", "cats", "--text", "hello"],
            "no pod of the routers",
        )
        .await;
    });
}
