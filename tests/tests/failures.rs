//! Each cause that the operator names: from what the kubelet, the scheduler, the server or the
//! ReplicaSet controller say, to the condition, the event and the revision's last failure.

use kube::ResourceExt as _;
use ortolan_crds::{InferenceService, RevisionPhase};
use ortolan_tests::{
    Cluster, Fate, Operator, World,
    kstatus::{Kstatus, kstatus},
    world::{condition, is_observed, spec, world},
};
use serde_json::{Value, json};

use crate::lifecycle::{conditions, revision_of};

/// A cause: the service's name, what happens to its pods, and what is to be read.
struct Case {
    name: &'static str,
    fate: Fate,
    reason: &'static str,
    message: &'static str,
    exit_code: Option<i32>,
    for_good: bool,
}

fn case(name: &'static str, fate: Fate, reason: &'static str, message: &'static str) -> Case {
    Case {
        name,
        fate,
        reason,
        message,
        exit_code: None,
        for_good: false,
    }
}

fn exit(
    name: &'static str,
    code: i32,
    said: &str,
    reason: &'static str,
    message: &'static str,
) -> Case {
    let for_good = ![
        "StoreUnavailable",
        "ModelNotFound",
        "AccessDenied",
        "OutOfSpace",
        "PortInUse",
        "Internal",
    ]
    .contains(&reason);
    Case {
        exit_code: Some(code),
        for_good,
        ..case(name, Fate::exited(code, said), reason, message)
    }
}

fn waiting(reason: &str, message: &str) -> Fate {
    Fate::container(
        json!({"waiting": {"reason": reason, "message": message}}),
        0,
    )
}

fn unschedulable(words: &str) -> Fate {
    Fate::Status(json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}]}))
}

/// The server's own words, by the table of its exit codes.
fn exits() -> Vec<Case> {
    let same = |name, code, reason: &'static str, sentence: &'static str| {
        exit(
            name,
            code,
            &format!("{reason}: {sentence}"),
            reason,
            sentence,
        )
    };
    vec![
        same("e1", 1, "Internal", "a bug"),
        same(
            "e10",
            10,
            "StoreUnavailable",
            "models.example.com does not resolve",
        ),
        same(
            "e11",
            11,
            "ModelNotFound",
            "404 for https://models.example.com/e11.onnx",
        ),
        same("e12", 12, "AccessDenied", "401: check credentialsSecretRef"),
        same(
            "e13",
            13,
            "DigestMismatch",
            "expected sha256:aa, got sha256:bb",
        ),
        same("e14", 14, "ArchiveRefused", "the archive holds ../m.onnx"),
        same(
            "e15",
            15,
            "InvalidModel",
            "opset 99 is newer than the runtime's",
        ),
        same("e16", 16, "ProviderUnavailable", "CUDA did not load"),
        same("e17", 17, "OutOfSpace", "the disk is full"),
        same("e18", 18, "ModelTooLarge", "over 20 GiB"),
        same(
            "e19",
            19,
            "RuntimeMissing",
            "libonnxruntime.so was not found",
        ),
        same("e20", 20, "InvalidConfig", "model.yaml: line 3"),
        same("e21", 21, "WarmUpFailed", "the first run failed"),
        same("e22", 22, "UnsupportedUri", "gopher is no scheme"),
        same("e23", 23, "PortInUse", "cannot listen on 0.0.0.0:8080"),
        exit(
            "e2",
            2,
            "error: unexpected argument '--x'",
            "CrashLoop",
            "the server exits with code 2 with the last line: error: unexpected argument '--x'",
        ),
        Case {
            for_good: false,
            ..exit(
                "e139",
                139,
                "",
                "CrashLoop",
                "the server exits with code 139 and left no message; see its log",
            )
        },
        Case {
            for_good: false,
            ..exit(
                "oom",
                137,
                "",
                "OOMKilled",
                "the server was killed at its memory limit of 1Gi: raise server.resources.limits.memory, or serve a smaller model",
            )
        },
        Case {
            exit_code: Some(137),
            for_good: true,
            ..case(
                "oomagain",
                Fate::container(
                    json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
                    3,
                ),
                "OOMKilled",
                "the server was killed at its memory limit of 1Gi",
            )
        },
    ]
}

/// What the kubelet and the scheduler say.
fn pods() -> Vec<Case> {
    vec![
        case(
            "pull",
            waiting("ErrImagePull", "not found"),
            "ImagePullFailed",
            "the image ortolan/server:1 cannot be pulled: not found",
        ),
        case(
            "backoff",
            waiting(
                "ImagePullBackOff",
                "Back-off pulling image \"ortolan/server:1\": ErrImagePull: not found",
            ),
            "ImagePullFailed",
            "the image ortolan/server:1 cannot be pulled: not found",
        ),
        case(
            "never",
            waiting("ErrImageNeverPull", ""),
            "ImagePullFailed",
            "the image ortolan/server:1 cannot be pulled",
        ),
        Case {
            for_good: true,
            ..case(
                "name",
                waiting("InvalidImageName", "couldn't parse"),
                "InvalidImageName",
                "the image name \"ortolan/server:1\" is malformed: couldn't parse",
            )
        },
        case(
            "config",
            waiting("CreateContainerConfigError", "secret \"store\" not found"),
            "CreateContainerConfigError",
            "secret \"store\" not found",
        ),
        case(
            "run",
            waiting("RunContainerError", "no such file"),
            "RunContainerError",
            "no such file",
        ),
        case(
            "gpu",
            unschedulable(
                "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available",
            ),
            "Unschedulable",
            "1 of 1 pods cannot be scheduled: each needs 4 nvidia.com/gpu; 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        ),
        case(
            "cpu",
            unschedulable("0/3 nodes are available: 3 Insufficient cpu."),
            "Unschedulable",
            "1 of 1 pods cannot be scheduled: 0/3 nodes are available: 3 Insufficient cpu.",
        ),
        case(
            "evicted",
            Fate::Status(
                json!({"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}),
            ),
            "Evicted",
            "the kubelet evicted a pod: the node was low on memory",
        ),
        case(
            "volumes",
            Fate::Status(
                json!({"phase": "Pending", "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [{
                "name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ContainerCreating"}}}]}),
            ),
            "VolumesNotReady",
            "a pod waits for its volumes: check that Secret store exists in this namespace, and its events",
        ),
    ]
}

fn spec_of(case: &Case) -> Value {
    let mut spec = spec(&format!("file-{}", case.name));
    match case.name {
        "gpu" => {
            let accelerator = json!({"resource": "nvidia.com/gpu", "count": 4, "provider": "CPU"});
            spec["server"] = json!({"accelerator": accelerator});
        }
        "volumes" => spec["model"]["credentialsSecretRef"] = json!({"name": "store"}),
        _ => {}
    }
    spec
}

/// Condition, event and last failure of a service that has never served.
async fn is_told(w: &World, case: &Case) {
    let what = format!("{}: {} {:?}", case.name, case.reason, case.message);
    // A deadline adds to the message of a cause that was told before.
    let told = |service: &InferenceService| {
        condition(service, "Ready").is_some_and(|ready| {
            ready.status == "False"
                && ready.reason == case.reason
                && ready.message.starts_with(case.message)
        }) && is_observed(service)
    };
    let service = w.until_service(&what, case.name, told).await;
    let ready = condition(&service, "Ready").expect("a condition");
    let context = format!("{}: {}", case.name, ready.message);
    let (expected, tool) = if case.for_good {
        ("False False False True", Kstatus::Failed)
    } else {
        ("False False True -", Kstatus::InProgress)
    };
    assert_eq!(conditions(&service), expected, "{context}");
    assert_eq!(kstatus(&service), tool, "{context}");
    let event = w.until_event(case.name, case.reason, case.message).await;
    assert_eq!(event.type_.as_deref(), Some("Warning"), "{context}");
    let name = revision_of(&service);
    let status = service.status.as_ref().expect("a status");
    let revision = status
        .revisions
        .iter()
        .find(|r| r.name == name)
        .expect("the revision");
    let phase = if case.for_good {
        RevisionPhase::Failed
    } else {
        RevisionPhase::Starting
    };
    assert_eq!(revision.phase, phase, "{context}");
    let failure = revision.last_failure.as_ref().expect("a failure");
    assert_eq!(failure.reason, case.reason, "{context}");
    assert_eq!(failure.message, ready.message, "{context}");
    assert_eq!(failure.exit_code, case.exit_code, "{context}");
}

async fn are_told(w: &World, cases: Vec<Case>) {
    let cluster = Cluster::start(w, Fate::None);
    for case in &cases {
        cluster.fate(&format!("file-{}.onnx", case.name), case.fate.clone());
    }
    let _operator = Operator::start(w);
    for case in &cases {
        w.create(case.name, spec_of(case)).await;
    }
    for case in &cases {
        is_told(w, case).await;
    }
}

#[test]
fn each_exit_of_the_server_is_told_in_its_own_words() {
    world(async |w| are_told(&w, exits()).await);
}

#[test]
fn what_the_kubelet_and_the_scheduler_say_of_pods_is_told() {
    world(async |w| are_told(&w, pods()).await);
}

#[test]
fn pods_that_cannot_be_created_are_told_without_their_changing_names() {
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::None);
        let refused = |pod: &str| {
            json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                   "message": format!("pods \"{pod}\" is forbidden: exceeded quota: q")})
        };
        cluster.condition("file-quota", refused("quota-1-abcde"));
        let operator = Operator::start(&w);
        w.create("quota", spec("file-quota")).await;
        let case = case(
            "quota",
            Fate::None,
            "PodsRefused",
            "the pods cannot be created: pods is forbidden: exceeded quota: q",
        );
        is_told(&w, &case).await;

        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let before = operator.tap.writes();
        cluster.condition("file-quota", refused("quota-1-fghij"));
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(
            operator.tap.writes(),
            before,
            "another pod's name is no news"
        );
    });
}

#[test]
fn a_start_past_its_progress_deadline_has_failed() {
    world(async |w| {
        let cluster = Cluster::start(&w, Fate::Pending);
        let late = json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
                          "message": "ReplicaSet has timed out progressing."});
        cluster.condition("file-late", late);
        cluster.fate("file-late-pull", waiting("ErrImagePull", "not found"));
        let _operator = Operator::start(&w);
        w.create("late", spec("file-late")).await;
        w.create("late-pull", spec("file-late-pull")).await;
        let late = Case {
            for_good: true,
            ..case(
                "late",
                Fate::None,
                "ProgressDeadlineExceeded",
                "not ready within its progress deadline of 10 min",
            )
        };
        is_told(&w, &late).await;
        let pull = Case {
            for_good: true,
            ..case(
                "late-pull",
                Fate::None,
                "ImagePullFailed",
                "the image ortolan/server:1 cannot be pulled: not found (not ready within its progress deadline of 10 min)",
            )
        };
        is_told(&w, &pull).await;
    });
}

#[test]
fn a_spec_that_no_image_serves_says_which_value_to_set_and_keeps_what_serves() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let _operator = Operator::start(&w);
        let mut gpu = spec("a");
        gpu["server"] = json!({"accelerator": {"resource": "nvidia.com/gpu"}});
        w.create("new", gpu.clone()).await;
        let refused = w.until_ready_is("new", "False", "InvalidSpec").await;
        assert_eq!(conditions(&refused), "False False False True");
        let words = "the platform has no server image for the provider CUDA: set the chart's images.server.cuda, or write server.image";
        assert_eq!(
            condition(&refused, "Ready").expect("a condition").message,
            words
        );
        w.until_event("new", "InvalidSpec", words).await;

        let first = crate::lifecycle::serving(&w, "m", spec("a")).await;
        let changed = w.edit::<InferenceService>("m", json!({"spec": gpu})).await;
        let refused = w.until_ready_is("m", "False", "InvalidSpec").await;
        assert_eq!(conditions(&refused), "False True False True");
        assert_eq!(kstatus(&refused), Kstatus::Failed);
        assert_ne!(revision_of(&changed), revision_of(&first));
        assert_eq!(crate::lifecycle::served(&w, "m").await, revision_of(&first));
    });
}

#[test]
fn what_the_api_server_refuses_to_make_is_told_in_its_words() {
    world(async |w| {
        let _cluster = Cluster::start(&w, Fate::Ready);
        let operator = Operator::start(&w);
        let mut wrong = spec("a");
        wrong["pod"] = json!({"labels": {"no label": "x"}});
        w.create("m", wrong).await;
        let refused = w.until_ready_is("m", "False", "InvalidSpec").await;
        let words = &condition(&refused, "Ready").expect("a condition").message;
        assert!(
            words.starts_with("the API server refuses Deployment m-"),
            "{words}"
        );
        assert!(words.contains("no label"), "{words}");
        // Each event of what was written so far (the service, its revision, its status) is one more try;
        // a back-off would have added four of its own by then.
        tokio::time::sleep(std::time::Duration::from_secs(12)).await;
        let writes = operator.tap.writes();
        let tries = writes
            .iter()
            .filter(|w| w.contains("/deployments/"))
            .count();
        assert!(
            tries <= 4,
            "nothing is tried again before the spec changes: {writes:#?}"
        );
        assert_eq!(w.get::<InferenceService>("m").await.name_any(), "m");

        w.edit::<InferenceService>("m", json!({"spec": {"pod": null}}))
            .await;
        w.until_ready_is("m", "True", "Serving").await;
    });
}
